/* Frames: COBS with 0 as the delimiter; op u8, tag u8, argument u16, body, CRC-32 of all before it. Little endian. */

static inline u32 crc_byte(u32 crc, u32 byte) { return crc >> 8 ^ g.crc_table[(crc ^ byte) & 255]; }

/* Four tables: a word takes four looks. */
static inline u32 crc_word(u32 crc, u32 word) {
    const u32 *table = g.crc_table;
    crc ^= word;
    return table[768 + (crc & 255)] ^ table[512 + (crc >> 8 & 255)] ^ table[256 + (crc >> 16 & 255)] ^ table[crc >> 24];
}

static void crc_start(void) {
    u32 *table = g.crc_table;
    for (u32 i = 0; i < 1024; i++) {
        u32 c = i < 256 ? i : table[i - 256];
        if (i < 256)
            for (u32 k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1; /* CRC-32 of IEEE 802.3, reflected */
        else c = c >> 8 ^ table[c & 255];
        table[i] = c;
    }
}

static u32 crc_bytes(const u8 *bytes, u32 n) {
    u32 crc = ~0u;
    while (n--) crc = crc_byte(crc, *bytes++);
    return ~crc;
}

/* Called by the interrupt for every byte that arrived. */
static inline void rx_push(u32 byte) {
    u32 at = g.rx_in;
    if (at - g.rx_out < RX_RING) {
        g.rx[at & (RX_RING - 1)] = byte;
        g.rx_in = at + 1;
    } else g.lost_ring++;
}

static void tx_put(u32 byte) {
    u32 at = g.tx_in, since = hw_cycles();
    while (at - g.tx_out >= TX_RING) {
        if (hw_cycles() - since > hw_ms(1000)) return; /* the transmitter stands still: drop rather than hang */
        hw_transmit();
        hw_nap(hw_ms(1));
    }
    g.tx[at & (TX_RING - 1)] = byte;
    g.tx_in = at + 1;
}

/* Send the frame that begins at `words`: n body bytes behind the head; the CRC is put behind them. */
static void send(u32 *words, u32 op, u32 tag, u32 argument, u32 n) {
    words[0] = op | tag << 8 | argument << 16;
    u8 *p = (u8 *)words, *end;
    u32 crc = crc_bytes(p, n += FRAME_HEAD);
    for (u32 k = 0; k < 4; k++) p[n++] = crc >> 8 * k;
    end = p + n;
    for (;;) {
        u32 run = 0;
        while (run < 254 && p + run < end && p[run]) run++;
        tx_put(run + 1);
        for (u32 k = 0; k < run; k++) tx_put(p[k]);
        p += run;
        if (p == end) break; /* the end counts as one more zero, which the receiver does not append */
        if (run < 254) p++;
    }
    tx_put(0);
    hw_transmit();
}

static void reply(u32 status, u32 n) {
    u32 head = g.frame[0];
    send(g.small, (head & 0x7f) | REPLY, head >> 8 & 255, status, n);
}

/* Outcomes of listen(). */
enum { HEARD_NOTHING, HEARD_FRAME, HEARD_DAMAGE };

/* The CRC of a frame with its CRC behind it is always this. */
#define CRC_RESIDUE 0x2144df1cu

static u32 take_byte(u32 b) {
    u8 *frame = (u8 *)g.frame;
    u32 have = g.have, left = g.left;
    if (b == 0) {
        u32 any = g.any;
        g.have = g.left = g.gap = g.any = 0;
        g.used = have - FRAME_CRC;
        if (!left && have >= FRAME_HEAD + FRAME_CRC && crc_bytes(frame, have) == CRC_RESIDUE) return HEARD_FRAME;
        g.bad_frames += any;
        return any ? HEARD_DAMAGE : HEARD_NOTHING;
    }
    g.any = 1;
    if (left) {
        g.left = left - 1;
    } else {
        u32 gap = g.gap;
        g.gap = b != 255; /* 255: 254 bytes and no zero behind them */
        g.left = b - 1;
        if (!gap) return HEARD_NOTHING;
        b = 0;
    }
    if (have < FRAME_HEAD + FRAME_BODY + FRAME_CRC) {
        frame[have] = b;
        g.have = have + 1;
    } else g.gap = g.left = ~0u; /* too long: cannot end well any more */
    return HEARD_NOTHING;
}

/* Wait up to `cycles` for the next frame, whole or damaged. A whole one is in g.frame, g.used bytes with its head. */
static u32 listen(u32 cycles) {
    u32 since = hw_cycles();
    for (;;) {
        u32 out = g.rx_out, heard = HEARD_NOTHING;
        while (!heard && out != g.rx_in) {
            heard = take_byte(g.rx[out & (RX_RING - 1)]);
            g.rx_out = ++out;
        }
        if (heard) return heard;
        u32 waited = hw_cycles() - since;
        if (waited >= cycles) return HEARD_NOTHING;
        hw_listen(cycles - waited);
    }
}
