/* Division: the lx106 has no such instruction, and the compiler's library leaves these to the boot ROM. */
#include "station.h"

/* An illegal instruction with a name, as in the boot ROM: the exception handler reports it as cause 6. */
extern const char division_by_zero[];

static inline uint32_t divide(uint32_t a, uint32_t b, uint32_t *remainder)
{
    uint32_t quotient = 0, part = 0;
    if (b == 0)
        __asm__ volatile(".global division_by_zero\ndivision_by_zero: ill");
    for (int i = 31; i >= 0; i--) {
        part = part << 1 | ((a >> i) & 1);
        if (part >= b) {
            part -= b;
            quotient |= 1u << i;
        }
    }
    *remainder = part;
    return quotient;
}

static __attribute__((noinline)) uint32_t whole(uint32_t a, uint32_t b, uint32_t *remainder)
{
    return divide(a, b, remainder);
}

static uint32_t size_of(int32_t value)
{
    return value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
}

uint32_t __udivsi3(uint32_t a, uint32_t b)
{
    uint32_t remainder;
    return whole(a, b, &remainder);
}

uint32_t __umodsi3(uint32_t a, uint32_t b)
{
    uint32_t remainder;
    whole(a, b, &remainder);
    return remainder;
}

int32_t __divsi3(int32_t a, int32_t b)
{
    uint32_t remainder, quotient = whole(size_of(a), size_of(b), &remainder);
    return (a < 0) != (b < 0) ? -(int32_t)quotient : (int32_t)quotient;
}

int32_t __modsi3(int32_t a, int32_t b)
{
    uint32_t remainder;
    whole(size_of(a), size_of(b), &remainder);
    return a < 0 ? -(int32_t)remainder : (int32_t)remainder;
}
