/* Inflate (RFC 1951), fed frame by frame and emptied sector by sector.
 *
 * Up to 9 (literals and lengths) and 7 bits (distances) are looked up in one step; longer codes, which are rare, are
 * followed bit by bit through the counts of the canonical code. The decoder looks at 15 bits at once, so the host puts
 * four zero bytes behind the stream.
 */
enum { LIT_BITS = 9, DIST_BITS = 7, LONGEST = 15 };

static u32 next_data(void);
static u32 sector_done(u32 produced);

/* `fast` and `symbol` for the code whose lengths are given; 0 if more codes are used than there are. */
static u32 make_code(const u8 *lengths, u32 n, u16 *fast, u32 fast_bits, u16 *symbol, u16 *count) {
    u32 first[LONGEST + 2], index[LONGEST + 2], code = 0, at = 0;
    for (u32 k = 0; k <= LONGEST; k++) count[k] = 0;
    for (u32 k = 0; k < n; k++) count[lengths[k]]++;
    count[0] = 0;
    for (u32 k = 1; k <= LONGEST; k++) {
        code = (code + count[k - 1]) << 1;
        first[k] = code;
        index[k] = at;
        at += count[k];
        if (code + count[k] > 1u << k) return 0;
    }
    for (u32 k = 0; k < 1u << fast_bits; k++) fast[k] = 0;
    for (u32 s = 0; s < n; s++) {
        u32 bits = lengths[s], c;
        if (!bits) continue;
        symbol[index[bits]++] = s;
        c = first[bits]++;
        if (bits > fast_bits) continue;
        u32 turned = 0;
        for (u32 k = 0; k < bits; k++) turned = turned << 1 | (c >> k & 1);
        for (u32 k = turned; k < 1u << fast_bits; k += 1u << bits) fast[k] = s << 4 | bits;
    }
    return 1;
}

/* A long code: symbol << 4 | bits as in the tables, 0 if there is no such code. */
static u32 long_code(u32 hold, const u16 *symbol, const u16 *count) {
    s32 code = 0, first = 0, index = 0;
    for (u32 bits = 1; bits <= LONGEST; bits++) {
        code |= hold & 1;
        hold >>= 1;
        s32 n = count[bits];
        if (code - first < n) return (u32)symbol[index + code - first] << 4 | bits;
        index += n;
        first = (first + n) << 1;
        code <<= 1;
    }
    return 0;
}

static u32 more(u32 n) {
    while (g.bits < n) {
        if (g.in == g.in_end && !next_data()) return 0;
        g.hold |= (u32)*g.in++ << g.bits;
        g.bits += 8;
    }
    return 1;
}

/* The next n <= 16 bits; zeros once the stream has failed. */
static u32 take(u32 n) {
    if (!more(n)) return 0;
    u32 v = g.hold & ((1u << n) - 1);
    g.hold >>= n;
    g.bits -= n;
    return v;
}

static u32 dynamic_code(void) {
    u8 *lengths = g.lengths;
    u32 lits = take(5) + 257, dists = take(5) + 1, n = take(4) + 4, at = 0;
    if (lits > 286 || dists > 30) return 0;
    for (u32 k = 0; k < 19; k++) lengths[k] = 0;
    for (u32 k = 0; k < n; k++) {
        /* RFC 1951's order 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1 15 */
        u32 half = (k - 3) >> 1, place = k < 3 ? 16 + k : k == 3 ? 0 : k & 1 ? 8 - half : 8 + half;
        lengths[place] = take(3);
    }
    if (!make_code(lengths, 19, g.dist_fast, DIST_BITS, g.dist_symbol, g.dist_count)) return 0;
    while (at < lits + dists) {
        if (!more(DIST_BITS)) return 0;
        u32 e = g.dist_fast[g.hold & ((1u << DIST_BITS) - 1)]; /* these codes have seven bits at most */
        if (!e) return 0;
        take(e & 15);
        u32 s = e >> 4, repeat = 1, value = s;
        if (s >= 16) {
            value = 0;
            if (s == 16) {
                if (!at) return 0;
                value = lengths[at - 1];
                repeat = 3 + take(2);
            } else repeat = s == 17 ? 3 + take(3) : 11 + take(7);
        }
        if (at + repeat > lits + dists) return 0;
        while (repeat--) lengths[at++] = value;
    }
    if (!make_code(lengths + lits, dists, g.dist_fast, DIST_BITS, g.dist_symbol, g.dist_count)) return 0;
    return make_code(lengths, lits, g.lit_fast, LIT_BITS, g.lit_symbol, g.lit_count);
}

static u32 fixed_code(void) {
    u8 *lengths = g.lengths;
    for (u32 k = 0; k < 288; k++) lengths[k] = k < 144 ? 8 : k < 256 ? 9 : k < 280 ? 7 : 8;
    for (u32 k = 288; k < 318; k++) lengths[k] = 5;
    make_code(lengths, 288, g.lit_fast, LIT_BITS, g.lit_symbol, g.lit_count);
    return make_code(lengths + 288, 30, g.dist_fast, DIST_BITS, g.dist_symbol, g.dist_count);
}

static u32 put(u32 produced, u32 value) {
    ((u8 *)g.window)[produced & 32767] = value;
    return (produced + 1) & (SECTOR - 1) || sector_done(produced + 1);
}

/* Produce g.length bytes: stored ones (raw), or what the stream says. 0: failed, and g.status says why, or the stream
 * is invalid (then it is still ST_ACTIVE). */
static u32 inflate(u32 raw) {
    u8 *const window = (u8 *)g.window;
    const u32 length = g.length;
    u32 produced = 0, last = raw;
    g.hold = g.bits = 0;
    do {
        u32 kind = 0, n = length;
        if (!raw) {
            last = take(1);
            kind = take(2);
        }
        if (kind == 0) {
            if (!raw) {
                take(g.bits & 7);
                n = take(16);
                if ((take(16) ^ n) != 0xffff) return 0;
            }
            while (n--) {
                u32 value = take(8);
                if (g.status != ST_ACTIVE || !put(produced, value)) return 0;
                if (++produced == length) return 1;
            }
            continue;
        }
        if (kind == 1 ? !fixed_code() : kind != 2 || !dynamic_code()) return 0;

        /* The bit buffer is in registers while a block runs: a literal or length with its extra bits takes 20 bits at
         * most, a distance 15 and then 13. */
        u32 hold = g.hold, bits = g.bits, far = 0, wanted = 20;
        const u8 *in = g.in;
        const u16 *fast = g.lit_fast;
        u32 s = 0, e;
        n = 0;
        for (;;) {
            while (bits < wanted) {
                if (in == g.in_end) {
                    if (!next_data()) return 0;
                    in = g.in;
                }
                hold |= (u32)*in++ << bits;
                bits += 8;
            }
            if (wanted == 13) { /* the extra bits of a distance */
                e = (s >> 1) - 1;
                far = ((2 + (s & 1)) << e) + 1;
            } else {
                u32 is_far = fast == g.dist_fast;
                e = fast[hold & ((1u << (is_far ? DIST_BITS : LIT_BITS)) - 1)];
                if (!e) e = is_far ? long_code(hold, g.dist_symbol, g.dist_count) : long_code(hold, g.lit_symbol, g.lit_count);
                if (!e) return 0;
                hold >>= e & 15;
                bits -= e & 15;
                s = e >> 4;
                if (is_far) {
                    if (s > 29) return 0;
                    if (s >= 4) {
                        wanted = 13;
                        continue;
                    }
                    far = s + 1;
                    e = 0;
                } else if (s < 256) {
                    n = 1;
                    far = 0;
                    goto output;
                } else if (s == 256) break;
                else {
                    s -= 257;
                    if (s > 28) return 0;
                    e = s < 8 || s == 28 ? 0 : (s >> 2) - 1;
                    n = s == 28 ? 258 : s < 8 ? s + 3 : ((4 + (s & 3)) << e) + 3;
                }
            }
            u32 extra = hold & ((1u << e) - 1);
            hold >>= e;
            bits -= e;
            if (!far) {
                n += extra;
                fast = g.dist_fast;
                far = 1; /* until the distance is known */
                wanted = LONGEST;
                continue;
            }
            far += extra;
            if (far > produced) return 0;
        output:
            do {
                window[produced & 32767] = far ? window[(produced - far) & 32767] : s;
                if (!(++produced & (SECTOR - 1))) {
                    if (!sector_done(produced)) return 0;
                    if (produced == length) return 1;
                }
            } while (--n);
            far = 0;
            fast = g.lit_fast;
            wanted = 20;
        }
        g.hold = hold;
        g.bits = bits;
        g.in = in;
    } while (!last);
    return 0; /* the stream ended before the region was full */
}
