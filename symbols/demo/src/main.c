/* The weather station's round: measure, think, report. */
#include "station.h"

static int due(enum fault fault, unsigned round)
{
    const struct settings *s = settings();
    return s->fault == fault && round >= s->after;
}

static void measure(unsigned round)
{
    sensors_sample(round);
    history_add(sensor_value(sensor_named("temperature")));
    unsigned ticks = rain_ticks(due(FAULT_WATCHDOG, round) ? FAULT_WATCHDOG : FAULT_NONE);
    if (ticks)
        say("rain: %u ticks\n", ticks);
}

static void think(unsigned round)
{
    if (due(FAULT_DIVIDE, round)) {
        say("new day\n");
        history_clear();
    }
    int32_t mean = history_mean();
    say("mean temperature %d.%d C\n", mean / 10, mean % 10);
    if (due(FAULT_STORE, round))
        sensors_calibrate("light", -20);
    if (due(FAULT_ILLEGAL, round))
        uplink_command(7);
}

static void loop(unsigned round)
{
    measure(round);
    think(round);
    uplink_send(round);
    if (due(FAULT_MEMORY, round))
        uplink_keep(round);
    feed_watchdog();
    rest(1000);
}

void station(void)
{
    say("\nweather station 1.2.0\n");
    say("sensors: temperature humidity pressure light\n");
    say("wifi: connected to garden, 192.168.4.17\n");
    for (unsigned round = 1;; round++)
        loop(round);
}
