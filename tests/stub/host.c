/* The stub as a program for a desk.
 *
 * Without arguments it is driven by a test over stdin and stdout, in lock-step (see tests/stub/desk.py): one byte says
 * what, little endian numbers follow.
 *   S n bytes        put bytes on the wire                      R us       run until output or that moment
 *   B rate           the host's rate                            D divider  the stub's divider
 *   L us             the adapter's latency
 *   P a n bytes      put flash contents                         G a n      -> flash contents
 *   C id status mode bad cut   make the chip so (bits of mode: silent, stuck busy, never enabled, keeps
 *                    protection, asleep)
 *   K                what the chip counted -> changes           X          power off and on
 * R answers: us:u64 what:u8 n:u32 bytes; what: 0 running, 1 power was cut, 2 the stub left (then n is how).
 *
 * With `fuzz SEED COUNT` it feeds itself: COUNT streams of whole, damaged and invented frames and noise.
 */
#define STUB_HOST
#include "stub.c"

static void answer(int what, uint32_t n, const void *bytes, uint32_t length) {
    uint64_t us = now / CYCLES_PER_US;
    uint8_t kind = (uint8_t)what;
    fwrite(&us, 8, 1, stdout);
    fwrite(&kind, 1, 1, stdout);
    fwrite(&n, 4, 1, stdout);
    if (length) fwrite(bytes, 1, length, stdout);
    fflush(stdout);
}

static uint8_t buffer[1 << 20];
static void need(void *p, size_t n) {
    if (n && fread(p, 1, n, stdin) != n) exit(0);
}
static uint32_t number(void) {
    uint32_t v;
    need(&v, 4);
    return v;
}

static int asked; /* an R is waiting for its answer */

/* Obey the host until it says run. */
static void obey(void) {
    for (;;) {
        uint8_t c;
        need(&c, 1);
        if (c == 'S') {
            uint32_t n = number();
            if (n > sizeof buffer) violation("too long", n);
            need(buffer, n);
            wire(buffer, n);
        } else if (c == 'R') {
            uint64_t us;
            need(&us, 8);
            host_deadline = us * CYCLES_PER_US;
            asked = 1;
            return;
        } else if (c == 'B') host_rate = number();
        else if (c == 'D') divider = number();
        else if (c == 'L') latency_us = number();
        else if (c == 'P') {
            uint32_t a = number(), n = number();
            if (a + n > FLASH_SIZE) violation("put", a);
            need(flash + a, n);
        } else if (c == 'G') {
            uint32_t a = number(), n = number();
            fwrite(flash + a, 1, n, stdout);
            fflush(stdout);
        } else if (c == 'C') {
            chip.id = number();
            chip.status = number();
            uint32_t mode = number();
            chip.silent = mode & 1;
            chip.stuck_busy = mode >> 1 & 1;
            chip.never_enabled = mode >> 2 & 1;
            chip.keeps_protection = mode >> 3 & 1;
            chip.asleep = mode >> 4 & 1;
            chip.silent |= chip.asleep;
            chip.bad_cell = number();
            chip.cut = (int32_t)number();
            chip.changes = 0;
        } else if (c == 'K') {
            uint32_t n = (uint32_t)chip.changes;
            fwrite(&n, 4, 1, stdout);
            fflush(stdout);
        } else if (c == 'X') longjmp(power_switch, POWER_CUT + 2);
        else violation("unknown order", c);
    }
}

static int fuzzing;
static void feed_once(void);

static void host_turn(void) {
    if (fuzzing) {
        feed_once();
        return;
    }
    if (asked) {
        asked = 0;
        answer(0, out_n, out_bytes, out_n);
        out_n = 0;
    }
    obey();
}

static void driven(void) {
    chip.id = 0x1240ef;
    chip.cut = -1;
    memset(flash, 0xff, sizeof flash);
    int how = setjmp(power_switch);
    if (how) {
        if (how == POWER_CUT) chip.cut = -1;
        if (asked) {
            asked = 0;
            answer(1, 0, 0, 0);
        }
        obey();
    }
    for (;;) {
        if (!asked) obey();
        power_up();
        uint32_t left = serve();
        asked = 0;
        answer(2, left, 0, 0);
        obey();
    }
}

/* ---- fuzz ---- */
static uint64_t seed;
static uint32_t any(uint32_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return below ? (uint32_t)((seed >> 16) % below) : 0;
}

static uint32_t put_frame(uint8_t *to, const uint8_t *plain, uint32_t n) {
    uint8_t *code = to++, *start = code;
    *code = 1;
    for (uint32_t k = 0; k < n; k++) {
        if (plain[k]) {
            *to++ = plain[k];
            if (++*code == 255) *(code = to++) = 1;
        } else *(code = to++) = 1;
    }
    *to++ = 0;
    return (uint32_t)(to - start);
}

static uint32_t table[256];
static uint32_t crc_of(const uint8_t *p, uint32_t n) {
    uint32_t c = ~0u;
    while (n--) c = c >> 8 ^ table[(c ^ *p++) & 255];
    return ~c;
}

static const uint8_t *data;
static size_t data_left;
static void feed_once(void) { /* the whole stream at once; then silence, until the stub has had its chance to stop */
    static uint64_t over;
    if (data) {
        for (size_t k = 0; k < data_left; k++) wire(data + k, 1);
        data = 0;
        over = in_free + (uint64_t)(SILENCE_MS * 3) * 1000 * CYCLES_PER_US;
        host_deadline = now + 5000 * CYCLES_PER_US;
        return;
    }
    out_n = 0;
    host_deadline = now + 50000 * CYCLES_PER_US;
    if (now > over && in_got == in_put) longjmp(power_switch, INPUT_OVER);
    /* Longest honest work: erase of the whole chip and its reports; with a stuck chip each wait runs to its limit. */
    if (now > over + (uint64_t)600 * 1000 * 1000 * CYCLES_PER_US) violation("the stub does not come to rest", 0);
}

static uint8_t stream[1 << 19];
static uint32_t invent(void) { /* a session as no sane host would have it */
    uint32_t n = 0, tag = any(256), sequence = 0;
    uint32_t following = 0; /* data frames that belong to the write before them */
    for (uint32_t frames = 1 + any(14); frames && n < sizeof stream - 20000; frames--) {
        uint8_t plain[8 + 4200];
        uint32_t length = 4, kind = any(20);
        plain[0] = following ? OP_DATA : any(40) ? 1 + any(11) : any(256);
        plain[1] = following || any(8) ? tag : any(256);
        plain[2] = plain[3] = 0;
        if (plain[0] == OP_DATA) {
            uint32_t body = following || any(3) ? any(4097) : any(40);
            plain[2] = sequence;
            plain[3] = sequence >> 8 | any(2) << 4;
            if (any(10)) sequence++;
            for (uint32_t k = 0; k < body; k++) plain[length++] = any(3) ? any(256) : 0x5a;
            /* A stored block of deflate's, so that some compressed writes get somewhere. */
            if (body > 5 && any(2)) {
                uint32_t stored = body - 5;
                plain[4] = 0;
                plain[5] = stored, plain[6] = stored >> 8, plain[7] = ~stored, plain[8] = ~stored >> 8;
            }
            following -= following > 0;
        } else {
            static const uint8_t counts[] = {[OP_WRITE] = 3, [OP_READ] = 3, [OP_MAP] = 3, [OP_DIGEST] = 3, [OP_ERASE] = 2, [OP_RATE] = 1, [OP_LEAVE] = 1};
            uint32_t w = any(10) ? (plain[0] < sizeof counts ? counts[plain[0]] : 0) : any(6);
            if (plain[0] == OP_WRITE) {
                sequence = 0;
                following = any(8);
                frames += following;
            }
            for (uint32_t k = 0; k < w; k++) {
                uint32_t v = any(6) ? (k == 2 || w == 1 ? any(3) : k == 1 ? (1 + any(4)) << 12 : any(64) << 12) : any(6) ? any(FLASH_SIZE) : (uint32_t)seed;
                if (plain[0] == OP_WRITE && k == 2) v &= 1;
                if (plain[0] == OP_LEAVE && any(20)) v = 77;
                if (plain[0] == OP_RATE && any(4)) v = 451;
                memcpy(plain + length, &v, 4);
                length += 4;
            }
        }
        uint32_t crc = crc_of(plain, length);
        memcpy(plain + length, &crc, 4);
        length += 4;
        if (kind == 0) plain[any(length)] ^= 1 << any(8);
        uint32_t start = n;
        n += put_frame(stream + n, plain, length);
        if (kind == 1) stream[start + any(n - start)] ^= 1 << any(8);
        if (kind == 2) n -= any(n - start);
        if (kind == 3) n += put_frame(stream + n, plain, length);
        if (kind == 4)
            for (uint32_t k = any(600); k; k--) stream[n++] = any(256);
    }
    return n;
}

static void one(const uint8_t *bytes, size_t n) {
    data = bytes;
    data_left = n;
    in_put = in_got = 0;
    asked = 0;
    divider = 451;
    host_rate = 115200;
    chip.changes = 0;
    if (!setjmp(power_switch)) {
        power_up();
        host_deadline = now + 100;
        serve();
    }
}

#ifdef WITH_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    fuzzing = 1;
    memset(&chip, 0, sizeof chip);
    chip.id = 0x1240ef;
    chip.cut = -1;
    if (n > 100000) return 0;
    one(bytes, n);
    return 0;
}
#else
static void fuzz(uint64_t from, uint32_t count) {
    fuzzing = 1;
    for (uint32_t k = 0; k < 256; k++) {
        uint32_t c = k;
        for (int j = 0; j < 8; j++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        table[k] = c;
    }
    uint64_t changes = 0, bytes = 0;
    for (uint32_t k = 0; k < count; k++) {
        seed = (from + k) * 0x9e3779b97f4a7c15u + 1;
        any(1);
        memset(&chip, 0, sizeof chip);
        chip.id = any(20) ? 0x1240ef : any(2) ? 0 : (uint32_t)seed & 0xffffff;
        if ((chip.id >> 16) > 0x12) chip.id = 0x1140ef; /* the model has no more cells */
        chip.cut = any(10) ? -1 : (int)any(60);
        chip.silent = !any(40);
        chip.stuck_busy = !any(60);
        chip.never_enabled = !any(60);
        chip.status = any(30) ? 0 : 0x1c;
        for (uint32_t a = 0; a < FLASH_SIZE; a += 4096) memset(flash + a, any(2) ? 0xff : any(256), 4096);
        uint32_t n = invent();
        one(stream, n);
        changes += chip.changes;
        bytes += n;
    }
    printf("streams %u bytes %llu flash changes %llu\n", count, (unsigned long long)bytes, (unsigned long long)changes);
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "fuzz")) fuzz(strtoull(argv[2], 0, 10), (uint32_t)atoi(argv[3]));
    else driven();
    return 0;
}
#endif
