/* What the station tells the world, and what the world tells the station. */
#include "station.h"

static int32_t measured(const char *name)
{
    return sensor_value(sensor_named(name));
}

static void line_for(const char *name, const char *unit)
{
    int32_t value = measured(name);
    say("  %s %d.%d %s\n", name, value / 10, value % 10, unit);
}

void uplink_send(unsigned round)
{
    say("report %u\n", round);
    line_for("temperature", "C");
    line_for("humidity", "%");
    line_for("pressure", "hPa");
    if (settings()->fault == FAULT_LOAD && round >= settings()->after)
        line_for("wind", "m/s"); /* this station has no wind sensor */
}

static const char *reply(unsigned type)
{
    switch (type) {
    case 1:
        return "pong";
    case 2:
        return "time set";
    default:
        never(); /* "the server only sends 1 and 2" */
    }
}

void uplink_command(unsigned type)
{
    say("command %u\n", type);
    say("  %s\n", reply(type));
}

/* A copy of every report is kept until the server has confirmed it. Nothing ever confirms it. */
void uplink_keep(unsigned round)
{
    for (;;) {
        struct report *report = take(sizeof *report);
        report->round = round;
        if (settings()->fault != FAULT_MEMORY) {
            give(report);
            return;
        }
        say("report kept, %u bytes left\n", (unsigned)memory_left());
    }
}
