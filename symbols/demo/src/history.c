/* The last measurements, for the hourly mean. */
#include "station.h"

#define ROOM 16

static int32_t values[ROOM];
static volatile unsigned count;

void history_add(int32_t value)
{
    values[count % ROOM] = value;
    count = count + 1;
}

void history_clear(void)
{
    count = 0;
}

/* Nobody checks that there is anything to average. */
int32_t history_mean(void)
{
    int32_t sum = 0;
    unsigned used = count < ROOM ? count : ROOM;
    for (unsigned i = 0; i < used; i++)
        sum += values[i];
    return sum / (int32_t)used;
}
