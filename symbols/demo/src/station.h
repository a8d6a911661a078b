/* The weather station: espmon's demo firmware. It is small, plausible, and its bugs are real ones. */
#ifndef STATION_H
#define STATION_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* What the settings sector in flash (mapped at SETTINGS_ADDRESS) asks for. An erased sector asks for nothing. */
struct settings {
    uint32_t magic; /* SETTINGS_MAGIC, or the rest is ignored */
    uint32_t fault; /* which bug to walk into, see enum fault */
    uint32_t after; /* healthy rounds before it */
};
#define SETTINGS_MAGIC 0x57534554u
#define SETTINGS_ADDRESS 0x4027e000u

enum fault {
    FAULT_NONE = 0,
    FAULT_LOAD = 1,    /* wind sensor is missing: read through a null pointer */
    FAULT_STORE = 2,   /* calibration of a sensor without a calibration record: write through a null pointer */
    FAULT_ILLEGAL = 3, /* a message type that "cannot happen" */
    FAULT_DIVIDE = 4,  /* average of an empty history */
    FAULT_WATCHDOG = 5, /* waits for a rain gauge that never answers */
    FAULT_MEMORY = 6,  /* a report that is never freed */
};

/* board.c: the machine */
void say(const char *format, ...);
void rest(unsigned milliseconds);
void feed_watchdog(void);
void restart(void) __attribute__((noreturn));
const struct settings *settings(void);

/* Where the code "cannot" get to: an illegal instruction, so that it is noticed when it does. */
#define never()                   \
    do {                          \
        __asm__ volatile("ill");  \
        __builtin_unreachable();  \
    } while (0)

/* postmortem.c */
void give_up(void) __attribute__((noreturn));

/* memory.c */
void *take(size_t size);
void give(void *memory);
size_t memory_left(void);
extern void *failed_caller;
extern size_t failed_size;

/* sensors.c */
struct calibration {
    int32_t gain;   /* 1/1000 */
    int32_t offset; /* 1/10 */
};
struct sensor {
    const char *name;
    const char *unit;
    int32_t raw;
    struct calibration *calibration;
};
struct sensor *sensor_named(const char *name);
int32_t sensor_value(const struct sensor *sensor);
void sensors_sample(unsigned round);
void sensors_calibrate(const char *name, int32_t offset);
unsigned rain_ticks(unsigned fault);

/* history.c */
void history_add(int32_t value);
void history_clear(void);
int32_t history_mean(void);

/* uplink.c */
struct report {
    unsigned round;
    char text[240];
};
void uplink_send(unsigned round);
void uplink_command(unsigned type);
void uplink_keep(unsigned round);

#endif
