/* The stub's hardware layer on a desk: a clock that only moves when the stub waits or looks at it, a UART whose bytes
 * take their time, a NOR flash that complains. For sanitizers, random sessions and fuzzing; nothing here is in the payload.
 */
#ifndef HW_HOST_H
#define HW_HOST_H
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CYCLES_PER_US 104

static uint64_t now; /* cycles */
static uint32_t divider = 451;
static jmp_buf power_switch;
enum { POWER_CUT = 1, INPUT_OVER = 2 };

static void violation(const char *what, uint32_t detail) {
    fprintf(stderr, "VIOLATION: %s (0x%x)\n", what, detail);
    abort();
}

/* ---- flash ---- */
enum { FLASH_SIZE = 256 * 1024 };
static uint8_t flash[FLASH_SIZE];
static struct {
    uint32_t id;       /* what RDID says */
    uint32_t status;   /* without busy and write enable */
    int enabled;       /* write enable latch */
    uint64_t busy;     /* until then */
    int silent;        /* no chip: all ones */
    int asleep;        /* deep power-down: silent until it is woken */
    int stuck_busy, never_enabled, keeps_protection;
    uint32_t bad_cell; /* address + 1 of a byte that stays what it is, 0 for none */
    long changes, cut; /* erases and programs so far; power goes at this one, -1 for never */
} chip;

static uint32_t host_words[16], host_address, host_status;
#define hw_spi_words host_words
#define HW_SPI_ADDRESS host_address
#define HW_SPI_STATUS host_status

/* A host may say that the chip is larger than its id does; then addresses wrap, as they do in a chip that lies. */
static uint32_t cell(uint32_t address, uint32_t n) {
    if (!g.forced_size && address + n > FLASH_SIZE) violation("beyond the end of the chip", address);
    return address % FLASH_SIZE;
}

static int changing(uint32_t address) {
    if (!chip.enabled) violation("erase or program without write enable", address);
    chip.enabled = 0;
    if (chip.status & 0x7c) violation("erase or program of a protected chip", address);
    if (chip.cut >= 0 && chip.changes == chip.cut) longjmp(power_switch, POWER_CUT);
    chip.changes++;
    return !chip.silent;
}

static void erase(uint32_t address, uint32_t n, uint32_t ms) {
    address = cell(address & 0xffffff & ~(n - 1), n);
    uint8_t kept = chip.bad_cell ? flash[chip.bad_cell - 1] : 0;
    if (changing(address)) memset(flash + address, 0xff, n);
    if (chip.bad_cell) flash[chip.bad_cell - 1] = kept;
    chip.busy = now + (uint64_t)ms * 1000 * CYCLES_PER_US;
}

static u32 hw_spi(u32 bit) {
    uint32_t address = host_address & 0xffffff, n = host_address >> 24;
    now += 60;
    if (bit == SPI_RES && chip.asleep) chip.asleep = chip.silent = 0;
    if (bit != SPI_RDSR && bit != SPI_RDID && now < chip.busy && !chip.stuck_busy) violation("command while the chip is busy", bit);
    switch (bit) {
    case SPI_READ:
        if (n > 60) violation("a read that hangs real chips", host_address);
        address = cell(address, n);
        if (chip.silent) memset(host_words, 0xff, n);
        else memcpy(host_words, flash + address, n);
        break;
    case SPI_WREN: chip.enabled = !chip.never_enabled && !chip.silent; break;
    case SPI_RDID: host_words[0] = chip.silent ? 0xffffff : chip.id; break;
    case SPI_RDSR:
        host_status = chip.silent ? 0xff : (chip.status | chip.enabled << 1 | (chip.stuck_busy || now < chip.busy));
        break;
    case SPI_WRSR:
        if (!chip.enabled && !chip.silent && !chip.never_enabled) violation("status written without write enable", 0);
        if (!chip.keeps_protection && chip.enabled) chip.status = host_status & 0xfc;
        chip.enabled = 0;
        chip.busy = now + 2000 * CYCLES_PER_US;
        break;
    case SPI_PP:
        if (!n || n > 64 || (address & 255) + n > 256) violation("program crosses a page", host_address);
        address = cell(address, n);
        if (changing(address))
            for (uint32_t k = 0; k < n; k++)
                if (address + k + 1 != chip.bad_cell) flash[address + k] &= ((uint8_t *)host_words)[k];
        chip.busy = now + 150 * CYCLES_PER_US;
        break;
    case SPI_SE: erase(address, 4096, 30); break;
    case SPI_BE: erase(address, 65536, 120); break;
    case SPI_RES: break;
    default: violation("unknown command", bit);
    }
    return 1;
}

static u32 hw_can_boot(void) { return 1; }
static const uint32_t hw_fuses[4] = {0x56000000, 0x02001234, 0x0000a000, 0x005ccf7f}; /* 5c:cf:7f:12:34:56 */

/* ---- the wire ---- */
static uint32_t host_rate = 115200;
static uint8_t in_bytes[1 << 20];  /* on its way to the stub */
static uint64_t in_when[1 << 20];
static uint32_t in_put, in_got;
static uint64_t in_free, out_free; /* until then the line is busy */
static uint64_t out_due;           /* when the byte in the shift register will have left */
static uint8_t out_bytes[1 << 20]; /* has left the stub */
static uint32_t out_n;
static uint64_t out_first;
static uint32_t latency_us = 1000; /* that an adapter collects bytes before it tells */
static int transmitting;
static void host_turn(void); /* the driver's: called when the host may act; may longjmp */
static uint64_t host_deadline;

static int rates_agree(void) {
    double stub = 52e6 / divider;
    return stub / host_rate < 1.03 && stub / host_rate > 0.97;
}
static uint64_t byte_time(double rate) { return (uint64_t)(10 * CYCLES_PER_US * 1e6 / rate); }

static inline void rx_push(u32 byte);

static void wire(const uint8_t *bytes, uint32_t n) {
    for (uint32_t k = 0; k < n; k++) {
        if (in_put - in_got >= sizeof in_bytes) violation("the driver sent too much", n);
        if (in_free < now) in_free = now;
        in_free += byte_time(host_rate);
        in_bytes[in_put & (sizeof in_bytes - 1)] = rates_agree() ? bytes[k] : bytes[k] ^ 0xa5;
        in_when[in_put & (sizeof in_bytes - 1)] = in_free;
        in_put++;
    }
}

/* Let the clock run to `until`; stop at the first byte that arrives if asked to. */
static void pass(uint64_t until, int stop_at_byte) {
    int stop = 0;
    while (!stop) {
        uint64_t next = until;
        int what = 0;
        uint32_t at = in_got & (sizeof in_bytes - 1);
        if (in_got != in_put && in_when[at] <= next) next = in_when[at], what = 1;
        if (transmitting) {
            if (!out_due) out_due = (out_free > now ? out_free : now) + byte_time(52e6 / divider);
            if (out_due <= next) next = out_due, what = 2;
        }
        uint64_t turn = host_deadline;
        if (out_n && out_first + (uint64_t)latency_us * CYCLES_PER_US < turn) turn = out_first + (uint64_t)latency_us * CYCLES_PER_US;
        if (turn <= next) next = turn, what = 3;
        if (next > now) now = next;
        if (what == 0) return;
        if (what == 1) {
            rx_push(in_bytes[at]);
            in_got++;
            stop = stop_at_byte;
        } else if (what == 2) {
            u32 out = g.tx_out;
            out_due = 0;
            if (out == g.tx_in) transmitting = 0;
            else {
                if (!out_n) out_first = now;
                if (out_n < sizeof out_bytes) out_bytes[out_n++] = rates_agree() ? g.tx[out & (TX_RING - 1)] : 0x5a;
                g.tx_out = out + 1;
                out_free = now;
            }
        } else host_turn();
    }
}

static u32 hw_ms(u32 ms) { return ms * 1000 * CYCLES_PER_US; }
static u32 hw_cycles(void) {
    pass(now + 12, 0);
    return (u32)now;
}
static void hw_nap(u32 cycles) { pass(now + cycles + 1, 0); }
static void hw_listen(u32 cycles) {
    if (g.rx_in == g.rx_out) pass(now + cycles + 1, 1);
}
static void hw_transmit(void) { transmitting = 1; }
static void hw_drain(void) {
    while (g.tx_in != g.tx_out) pass(now + 1000, 0);
}
static u32 hw_divider(void) { return divider; }
static void hw_set_divider(u32 d) { divider = d; }

/* ---- MD5 (RFC 1321), which the boot ROM lends the real one ---- */
typedef struct { uint32_t s[4]; uint64_t n; uint8_t b[64]; } Md5;
static void md5_block(Md5 *m, const uint8_t *p) {
    static const uint8_t turn[16] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};
    static uint32_t table[64];
    if (!table[0])
        for (int k = 0; k < 64; k++) { /* floor(2^32 |sin(k + 1)|), by Taylor series */
            double x = k + 1;
            while (x > 3.14159265358979323846) x -= 3.14159265358979323846;
            double term = x, sum = x;
            for (int n = 1; n < 16; n++) sum += term *= -x * x / ((2 * n) * (2 * n + 1));
            table[k] = (uint32_t)(4294967296.0 * (sum < 0 ? -sum : sum));
        }
    uint32_t a = m->s[0], b = m->s[1], c = m->s[2], d = m->s[3], w[16];
    memcpy(w, p, 64);
    for (int k = 0; k < 64; k++) {
        uint32_t f, i;
        if (k < 16) f = (b & c) | (~b & d), i = k;
        else if (k < 32) f = (d & b) | (~d & c), i = (5 * k + 1) & 15;
        else if (k < 48) f = b ^ c ^ d, i = (3 * k + 5) & 15;
        else f = c ^ (b | ~d), i = (7 * k) & 15;
        f += a + table[k] + w[i];
        a = d, d = c, c = b;
        int r = turn[k / 16 * 4 + k % 4];
        b += f << r | f >> (32 - r);
    }
    m->s[0] += a, m->s[1] += b, m->s[2] += c, m->s[3] += d;
}
static void hw_md5_start(void *context) {
    Md5 m = {{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}, 0, {0}};
    memcpy(context, &m, sizeof m);
}
static void hw_md5_add(void *context, const void *bytes, u32 n) {
    Md5 *m = context;
    for (u32 k = 0; k < n; k++) {
        m->b[m->n++ & 63] = ((const uint8_t *)bytes)[k];
        if (!(m->n & 63)) md5_block(m, m->b);
    }
}
static void hw_md5_end(u8 *digest, void *context) {
    Md5 *m = context;
    uint64_t bits = m->n * 8;
    uint8_t pad = 0x80;
    do hw_md5_add(m, &pad, 1), pad = 0;
    while ((m->n & 63) != 56);
    hw_md5_add(m, &bits, 8);
    memcpy(digest, m->s, 16);
}

/* Start as after the ROM's jump. */
static void power_up(void) {
    memset(&g, 0, sizeof g);
    transmitting = 0;
    chip.enabled = 0;
    chip.busy = 0;
    out_n = 0;
    in_got = in_put;
    now += 1000;
    in_free = out_free = now;
    out_due = 0;
}
#endif
