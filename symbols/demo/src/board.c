/* The machine below the station: UART, clock, watchdog, restart.
 *
 * The same ELF runs on an ESP8266 (UART0 at 0x60000000) and under `qemu-system-xtensa -M sim -cpu lx106 -semihosting`,
 * whose memory map equals the ESP8266's where it matters; there is plain memory where the UART would be, so its date
 * register reads 0 and text goes out by semihosting. */
#include "station.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART_FIFO REGISTER(0x60000000)
#define UART_STATUS REGISTER(0x6000001c)
#define UART_CLKDIV REGISTER(0x60000014)
#define UART_DATE REGISTER(0x60000078)
#define RTC_CONTROL REGISTER(0x60000700)

#define CLOCK 80000000u
#define TICK (CLOCK / 20) /* watchdog looks 20 times a second */
#define WATCHDOG_TICKS 64 /* 3.2 s, the SDK's soft watchdog */

static volatile unsigned hunger;

static int on_chip(void)
{
    return UART_DATE != 0;
}

static int host_call(int what, int a, int b, int c)
{
    register int r2 __asm__("a2") = what;
    register int r3 __asm__("a3") = a;
    register int r4 __asm__("a4") = b;
    register int r5 __asm__("a5") = c;
    __asm__ volatile("simcall" : "+r"(r2), "+r"(r3) : "r"(r4), "r"(r5) : "memory");
    return r2;
}

static void put(char c)
{
    if (on_chip()) {
        while (((UART_STATUS >> 16) & 0xff) >= 100) {
        }
        UART_FIFO = (uint8_t)c;
    } else {
        host_call(4, 1, (int)&c, 1); /* 4: write; 1: standard output */
    }
}

static void put_text(const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            put('\r');
        put(*text);
    }
}

static void put_number(uint32_t value, unsigned base, int width)
{
    static const char digits[] = "0123456789abcdef";
    char text[12];
    int n = 0;
    do {
        text[n++] = digits[value % base];
        value /= base;
    } while (value || n < width);
    while (n)
        put(text[--n]);
}

/* %s %d %u, %x with eight digits, %h with four. */
void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        if (*format != '%') {
            char one[2] = {*format, 0};
            put_text(one);
            continue;
        }
        switch (*++format) {
        case 's':
            put_text(va_arg(arguments, const char *));
            break;
        case 'd': {
            int value = va_arg(arguments, int);
            if (value < 0) {
                put('-');
                value = -value;
            }
            put_number((uint32_t)value, 10, 1);
            break;
        }
        case 'u':
            put_number(va_arg(arguments, unsigned), 10, 1);
            break;
        case 'x':
            put_number(va_arg(arguments, unsigned), 16, 8);
            break;
        case 'h':
            put_number(va_arg(arguments, unsigned), 16, 4);
            break;
        default:
            put(*format);
        }
    }
    va_end(arguments);
}

static uint32_t clock_now(void)
{
    uint32_t now;
    __asm__ volatile("rsr.ccount %0" : "=r"(now));
    return now;
}

void rest(unsigned milliseconds)
{
    if (!on_chip())
        return;
    for (; milliseconds; milliseconds--) {
        uint32_t start = clock_now();
        while (clock_now() - start < CLOCK / 1000) {
        }
        feed_watchdog();
    }
}

static void next_tick(void)
{
    uint32_t at = clock_now() + TICK;
    __asm__ volatile("wsr.ccompare0 %0; esync" ::"r"(at));
}

void feed_watchdog(void)
{
    hunger = 0;
}

/* Called from the exception handler for timer interrupts; true when nobody fed the watchdog for too long. */
int watchdog_bites(void)
{
    next_tick();
    return ++hunger > WATCHDOG_TICKS;
}

const struct settings *settings(void)
{
    static const struct settings none;
    const struct settings *s = (const struct settings *)SETTINGS_ADDRESS;
    return s->magic == SETTINGS_MAGIC ? s : &none;
}

void restart(void)
{
    if (on_chip()) {
        while ((UART_STATUS >> 16) & 0xff) {
        }
        for (volatile int i = 0; i < 20000; i++) {
        }
        RTC_CONTROL |= 0x80000000u;
    } else {
        host_call(1, 0, 0, 0); /* 1: exit */
    }
    for (;;) {
    }
}

extern uint32_t bss_start[], bss_end[], stack_bottom[];
void station(void);

/* Called by the start code, in IRAM, on the stack. The flash is not mapped yet on the chip. */
void start_c(void)
{
    for (uint32_t *p = bss_start; p < bss_end; p++)
        *p = 0;
    uint32_t *here = __builtin_frame_address(0);
    for (uint32_t *p = stack_bottom; p < here - 64; p++)
        *p = 0xfeefeffe;
    if (on_chip()) {
        /* ROM function Cache_Read_Enable(map 0, 0, 16 KiB cache): flash appears at 0x40200000 */
        ((void (*)(int, int, int))0x40004678)(0, 0, 0);
        UART_CLKDIV = 52000000 / 115200;
    }
    next_tick();
    uint32_t enable = 1u << 6; /* timer 0 of the lx106 */
    __asm__ volatile("wsr.intenable %0; rsync" ::"r"(enable));
    uint32_t level = 0x20; /* interrupts on, user vector mode */
    __asm__ volatile("wsr.ps %0; rsync" ::"r"(level));
    station();
}
