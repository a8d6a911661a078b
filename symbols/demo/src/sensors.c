/* Sensors: what is measured, and how raw counts become values. */
#include "station.h"

static struct calibration for_temperature = {1000, -3};
static struct calibration for_humidity = {980, 0};
static struct calibration for_pressure = {1000, 12};

static struct sensor sensors[] = {
    {"temperature", "C", 0, &for_temperature},
    {"humidity", "%", 0, &for_humidity},
    {"pressure", "hPa", 0, &for_pressure},
    {"light", "lx", 0, NULL},
};

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

struct sensor *sensor_named(const char *name)
{
    for (unsigned i = 0; i < sizeof sensors / sizeof *sensors; i++)
        if (same(sensors[i].name, name))
            return &sensors[i];
    return NULL;
}

static inline int32_t corrected(int32_t raw, const struct calibration *calibration)
{
    return (raw * calibration->gain) / 1000 + calibration->offset;
}

/* Nobody checks that the sensor exists: the null pointer is read here, several calls below the mistake. */
int32_t sensor_value(const struct sensor *sensor)
{
    return corrected(sensor->raw, sensor->calibration);
}

void sensors_sample(unsigned round)
{
    sensors[0].raw = 214 + (int32_t)(round % 5);
    sensors[1].raw = 561 - (int32_t)(round % 7);
    sensors[2].raw = 10132 + (int32_t)(round % 3);
    sensors[3].raw = 840;
}

static void set_offset(struct calibration *calibration, int32_t offset)
{
    calibration->offset = offset;
}

/* The light sensor has no calibration record: the write goes through a null pointer. */
void sensors_calibrate(const char *name, int32_t offset)
{
    struct sensor *sensor = sensor_named(name);
    say("calibration of %s: offset %d\n", name, offset);
    set_offset(sensor->calibration, offset);
}

static volatile uint32_t gauge_ready;
static volatile uint32_t gauge_ticks;

/* The gauge says when it is ready. When its cable is off, it never does. */
static __attribute__((noinline)) unsigned gauge_read(void)
{
    while (!gauge_ready) {
    }
    return gauge_ticks;
}

unsigned rain_ticks(unsigned fault)
{
    gauge_ready = fault != FAULT_WATCHDOG;
    return gauge_read();
}
