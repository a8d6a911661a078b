/* espmon's flasher stub for the ESP8266: what the ROM loader cannot do (read, digest, write at the speed of the wire).
 *
 * Commands are repeatable: a host that heard no answer sends again. Nothing a host sends or omits can hang it: outside
 * a write it only waits for frames, inside one it gives up after SILENCE_MS without progress.
 */
#include "core.h"
#ifdef STUB_HOST
#include "hw_host.h"
#else
#include "hw_esp8266.h"
#endif
#include "frame.c"
#include "flash.c"
#include "inflate.c"

#define BODY (g.frame + 1)      /* words of the command's body */
#define ANSWER (g.small + 1)    /* words of the reply's body */

static u32 words(void) { return g.used == FRAME_HEAD ? 0 : g.used & 3 ? ~0u : g.used / 4 - 1; }

/* ---- write ------------------------------------------------------------------------------------------------------ */

static void progress(u32 op) { send(g.small, op, g.tag, g.next & 0xfff, 0); }

/* n words into the answer, from its word `at` on. */
static void tell(u32 at, const u32 *from, u32 n) {
    while (n--) ANSWER[at + n] = from[n];
}

static void report(u32 op) {
    tell(0, &g.tag, 5);
    send(g.small, op, op == OP_END ? g.tag : g.frame[0] >> 8 & 255, g.status, 20);
}

/* The next data frame in order becomes g.in..g.in_end. 0 when the write is over, and g.status says why. */
static u32 next_data(void) {
    u32 since = hw_cycles();
    for (;;) {
        u32 waited = hw_cycles() - since;
        if (waited >= hw_ms(SILENCE_MS)) {
            g.status = ST_SILENCE;
            return 0;
        }
        u32 heard = listen(hw_ms(SILENCE_MS) - waited);
        if (heard == HEARD_NOTHING) continue;
        if (heard == HEARD_DAMAGE) {
            if (!g.nak) {
                g.nak = 1;
                progress(OP_NAK);
            }
            continue;
        }
        u32 head = g.frame[0], op = head & 255;
        if (op == OP_POLL) {
            report(OP_POLL | REPLY);
        } else if (op != OP_DATA) {
            g.status = ST_ABORTED;
            g.redo = 1;
            return 0;
        } else if ((head >> 8 & 255) == g.tag) {
            u32 epoch = head >> 28, ahead = ((head >> 16) - g.next) & 0xfff;
            if (!ahead) {
                g.epoch = epoch;
                g.nak = 0;
                g.next++;
                progress(OP_DATA | REPLY);
                g.in = (const u8 *)BODY;
                g.in_end = g.in + g.used - FRAME_HEAD;
                if (g.in != g.in_end) return 1;
            } else if (ahead >= 0x800) {
                progress(OP_DATA | REPLY); /* a repeat: the host missed the acknowledgement */
            } else if (!g.nak || epoch != g.epoch) {
                /* A gap. Frames sent before the host heard of it carry the old epoch: they are dropped in silence. */
                g.nak = 1;
                g.epoch = epoch;
                progress(OP_NAK);
            }
        }
    }
}

/* The window holds a whole sector that ends at `produced`. */
static u32 sector_done(u32 produced) {
    u32 at = produced - SECTOR, address = g.base + at, flags;
    flags = put_sector(address, g.window + (at & 32767) / 4, &ANSWER[1]);
    if (g.fault) {
        g.status = g.fault;
        return 0;
    }
    ANSWER[0] = address;
    g.done = produced;
    send(g.small, OP_SECTOR, g.tag, flags, 8);
    if (!((address + SECTOR) & (BLOCK - 1)) && g.length - produced >= BLOCK && !erase_block(address + SECTOR)) {
        g.status = g.fault;
        return 0;
    }
    return 1;
}

static void do_write(void) {
    u32 address = BODY[0], length = BODY[1], flags = BODY[2];
    g.tag = g.frame[0] >> 8 & 255;
    g.base = address;
    g.length = length;
    g.done = g.next = g.nak = g.epoch = 0;
    g.in = g.in_end = 0;
    g.status = ST_ACTIVE;
    reply(ST_OK, 0);
    if (!(address & (BLOCK - 1)) && length >= BLOCK && !erase_block(address)) g.status = g.fault;
    else if (inflate(!(flags & WRITE_DEFLATE))) g.status = ST_OK;
    else if (g.status == ST_ACTIVE) g.status = ST_DEFLATE;
    report(OP_END);
}

/* ---- the other commands ----------------------------------------------------------------------------------------- */

static void do_hello(void) {
    u32 n = words();
    if (n == 1) g.forced_size = BODY[0];
    if (identify()) ready(SPI_MS * 10); /* attaching writes the status register */
    ANSWER[0] = WINDOW;
    ANSWER[1] = hw_divider();
    ANSWER[2] = g.chip ? status1() : 0;
    ANSWER[3] = hw_can_boot();
    tell(4, &g.chip, 6);
    tell(10, hw_fuses, 4);
    reply(PROTOCOL, 56);
}

static void do_map(void) {
    u32 address = BODY[0], count = BODY[1] / SECTOR;
    while (count && !g.fault) {
        u32 n = 0;
        ANSWER[0] = address;
        for (; n < MAP_DIGESTS && count && !g.fault; n++, count--, address += SECTOR) inspect(address, 0, &ANSWER[1 + n]);
        reply(g.fault, 4 + 4 * n);
    }
}

static void do_read(void) {
    u32 address = BODY[0], count = BODY[1] / SECTOR, tag = g.frame[0] >> 8 & 255;
    u32 *out = g.window; /* head, body and CRC: no write is under way */
    for (; count; count--, address += SECTOR) {
        u32 any = 0;
        for (u32 at = 0; at < SECTOR; at += LOOK) {
            if (!fetch(address + at)) {
                reply(g.fault, 4); /* four bytes: an error, where none are a blank sector */
                return;
            }
            for (u32 k = 0; k < LOOK / 4; k++) any |= ~(out[1 + at / 4 + k] = hw_spi_words[k]);
        }
        send(out, OP_READ | REPLY, tag, address / SECTOR, any ? SECTOR : 0);
    }
}

static void do_digest(void) {
    u32 address = BODY[0], left = BODY[1];
    u32 *context = g.window, *piece = g.window + 64; /* no write is under way */
    hw_md5_start(context);
    while (left && fetch(address)) {
        u32 n = left < LOOK ? left : LOOK;
        for (u32 k = 0; k < LOOK / 4; k++) piece[k] = hw_spi_words[k];
        hw_md5_add(context, piece, n);
        address += n;
        left -= n;
    }
    hw_md5_end((u8 *)ANSWER, context);
    reply(g.fault, 16);
}

static void do_erase(void) {
    u32 address = BODY[0], left = BODY[1];
    do {
        if (!(address & (BLOCK - 1)) && left >= BLOCK) erase_block(address);
        if (!g.fault) erase_sector(address);
        if (!g.fault) {
            address += SECTOR;
            left -= SECTOR;
        }
        ANSWER[0] = address; /* a sign of life for every 64 KB, and the end */
        if (g.fault || !left || !(address & (BLOCK - 1))) reply(g.fault, 4);
    } while (left && !g.fault);
}

/* As the boot ROM's SPIUnlock does before it writes: status byte 1 becomes 0. */
static void do_unlock(void) {
    if (identify() && ready(ERASE_MS)) {
        ANSWER[0] = status1();
        hw_spi(SPI_WREN);
        HW_SPI_STATUS = 0;
        hw_spi(SPI_WRSR);
        ready(PROGRAM_MS * 8);
        ANSWER[1] = status1();
        if (ANSWER[1] & SR_PROTECT) fail(ST_PROTECTED);
    }
    reply(g.fault, 8);
}

/* The new rate holds when a whole frame arrives at it; otherwise the old one comes back, so a host that cannot follow
 * finds the stub again. */
static void do_rate(void) {
    u32 old = hw_divider(), divider = BODY[0], since, waited;
    if (divider < DIVIDER_MIN || divider > DIVIDER_MAX) {
        reply(ST_RANGE, 0);
        return;
    }
    reply(ST_OK, 0);
    hw_drain();
    hw_set_divider(divider);
    since = hw_cycles();
    while (!g.redo && (waited = hw_cycles() - since) < hw_ms(CONFIRM_MS))
        g.redo = listen(hw_ms(CONFIRM_MS) - waited) == HEARD_FRAME;
    if (!g.redo) hw_set_divider(old);
}

/* Run until told to leave; how to leave is the result. */
static u32 serve(void) {
    crc_start();
    g.status = ST_NONE;
    tx_put(0); /* ends whatever the ROM loader said last */
    g.frame[0] = OP_HELLO;
    g.used = FRAME_HEAD;
    for (g.redo = 1;;) {
        if (!g.redo && listen(hw_ms(SILENCE_MS)) != HEARD_FRAME) continue;
        g.redo = 0;
        g.fault = 0;
        u32 op = g.frame[0] & 255, n = words(), address = BODY[0], length = BODY[1];
        if (op == OP_DATA || op & REPLY) continue; /* of a write that is over; or our own echo */
        if (op == OP_HELLO && n <= 1) do_hello();
        else if (op == OP_POLL) report(OP_POLL | REPLY);
        else if (op == OP_UNLOCK) do_unlock();
        else if (op == OP_RATE && n == 1) do_rate();
        else if (op == OP_LEAVE && n == 1) {
            if (address == LEAVE_BOOT && !hw_can_boot()) fail(ST_NO_BOOT);
            reply(g.fault, 0);
            hw_drain();
            if (!g.fault) return address;
        } else if (op == OP_WRITE && n == 3) {
            if (writable(address, length)) do_write();
            else reply(g.fault, 4);
        } else if (op == OP_ERASE && n == 2) {
            if (writable(address, length)) do_erase();
            else reply(g.fault, 4);
        } else if ((op == OP_MAP || op == OP_READ || op == OP_DIGEST) && n == 3) {
            if (!allowed(address, op == OP_DIGEST ? (length + SECTOR - 1) & ~(SECTOR - 1u) : length)) reply(g.fault, 4);
            else if (op == OP_MAP) do_map();
            else if (op == OP_READ) do_read();
            else do_digest();
        } else reply(ST_COMMAND, 0);
    }
}
