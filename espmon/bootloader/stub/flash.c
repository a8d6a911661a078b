/* The flash chip, through the controller's own commands. Every wait is bounded; g.fault says what went wrong. */

static u32 fail(u32 status) {
    g.fault = status;
    return 0;
}

static u32 status1(void) {
    HW_SPI_STATUS = 0;
    if (!hw_spi(SPI_RDSR)) return SR_BUSY;
    return HW_SPI_STATUS & 255;
}

static u32 ready(u32 limit_ms) {
    u32 since = hw_cycles();
    while (status1() & SR_BUSY) {
        u32 waited = hw_cycles() - since, nap = waited >> 4; /* sleep: late by a sixteenth at most, and no busy bus */
        if (waited > hw_ms(limit_ms)) return fail(ST_TIMEOUT);
        if (nap < hw_ms(1) >> 6) nap = hw_ms(1) >> 6;
        hw_nap(nap);
    }
    return 1;
}

/* Ask the chip who it is. 0 and all ones are a bus without a chip, or one in deep power-down (left so by an application
 * that slept): that is ended and asked again. */
static u32 identify(void) {
    u32 id = 0;
    for (u32 tries = 2; tries && (!id || id == 0xffffff); tries--) {
        if (tries == 1) {
            hw_spi(SPI_RES);
            hw_nap(hw_ms(1)); /* data sheets: 3 to 30 us */
        }
        hw_spi_words[0] = 0;
        id = hw_spi(SPI_RDID) ? hw_spi_words[0] & 0xffffff : 0;
    }
    u32 code = id >> 16;
    if (id == 0xffffff) id = 0;
    g.chip = id;
    g.chip_size = !id ? 0 : g.forced_size ? g.forced_size : code >= 0x12 && code <= 0x18 ? 1u << code : 0;
    return g.chip_size ? 1 : fail(ST_NO_CHIP);
}

/* Whole sectors inside a chip that answers. */
static u32 allowed(u32 address, u32 length) {
    if (!identify()) return 0;
    if ((address | length) & (SECTOR - 1) || !length || length > g.chip_size || address > g.chip_size - length)
        return fail(ST_RANGE);
    return ready(ERASE_MS); /* an erase of before a reset may still run */
}

static u32 writable(u32 address, u32 length) {
    if (!allowed(address, length)) return 0;
    return status1() & SR_PROTECT ? fail(ST_PROTECTED) : 1;
}

static u32 fetch(u32 address) {
    HW_SPI_ADDRESS = address | LOOK << 24;
    return hw_spi(SPI_READ) ? 1 : fail(ST_TIMEOUT);
}

static u32 change(u32 address, u32 command, u32 limit_ms) {
    hw_spi(SPI_WREN);
    if ((status1() & (SR_WEL | SR_BUSY)) != SR_WEL) return fail(ST_PROTECTED);
    HW_SPI_ADDRESS = address;
    return hw_spi(command) ? ready(limit_ms) : fail(ST_TIMEOUT);
}

/* Compare a sector with `want` (0: with blank) and digest it. Most of a flash is blank: while nothing else was seen the
 * words are only looked at, and the digest of a blank sector is known. */
#define BLANK_DIGEST 0xf154670au
enum { DIFFERS = 1, NEEDS_ERASE = 2 };
static u32 inspect(u32 address, const u32 *want, u32 *digest) {
    u32 differs = 0, unset = 0, crc = ~0u, blank_yet = !want;
    volatile u32 *const words = hw_spi_words, *const end = words + LOOK / 4, *word;
    for (u32 at = 0; at < SECTOR; at += LOOK) {
        if (!fetch(address + at)) return DIFFERS | NEEDS_ERASE;
        if (blank_yet) {
            u32 all = ~0u;
            for (word = words; word < end; word++) all &= *word;
            if (!~all) continue;
            blank_yet = 0;
            for (u32 n = at; n; n--) crc = crc_byte(crc, 255);
        }
        for (word = words; word < end; word++) {
            u32 is = *word, should = want ? *want++ : ~0u;
            differs |= is ^ should;
            unset |= ~is & should;
            crc = crc_word(crc, is);
        }
    }
    *digest = blank_yet ? BLANK_DIGEST : ~crc;
    return differs ? unset ? DIFFERS | NEEDS_ERASE : DIFFERS : 0;
}

static u32 blank(u32 address) {
    u32 digest;
    return !inspect(address, 0, &digest);
}

/* Blank afterwards, or g.fault. */
static void erase_sector(u32 address) {
    if (!blank(address) && !g.fault && change(address, SPI_SE, ERASE_MS) && !blank(address)) fail(ST_VERIFY);
}

/* A 64 KB erase takes as long as three or four of 4 KB; blank blocks cost only the look. */
static u32 erase_block(u32 address) {
    u32 dirty = 0;
    for (u32 at = 0; at < BLOCK && dirty < 4; at += SECTOR) dirty += !blank(address + at);
    return dirty < 4 ? 1 : change(address, SPI_BE, ERASE_MS);
}

/* Bring one sector to `want`. Flags for the report, the digest of what was read back in *digest; g.fault if it failed. */
static u32 put_sector(u32 address, const u32 *want, u32 *digest) {
    u32 flags = 0, found;
    g.fault = 0;
    found = inspect(address, want, digest);
    if (g.fault) return 0;
    if (!found) return SEC_SAME;
    if (found & NEEDS_ERASE) {
        flags = SEC_ERASED;
        if (!change(address, SPI_SE, ERASE_MS)) return 0;
    }
    /* From the end to the start: an image's magic byte is the last of its first sector, so that a power cut never
     * leaves one that boots with a piece missing. */
    for (u32 at = SECTOR; at;) {
        at -= PIECE;
        const u32 *piece = want + at / 4;
        u32 other = 0;
        for (u32 k = 0; k < PIECE / 4; k++) {
            if (!(k & (LOOK / 4 - 1)) && !fetch(address + at + 4 * k)) return 0;
            other |= hw_spi_words[k & (LOOK / 4 - 1)] ^ piece[k];
        }
        if (!other) continue;
        if (!ready(PROGRAM_MS)) return 0;
        for (u32 k = 0; k < PIECE / 4; k++) hw_spi_words[k] = piece[k];
        if (!change((address + at) | PIECE << 24, SPI_PP, PROGRAM_MS)) return 0;
    }
    if (inspect(address, want, digest)) flags |= SEC_MISMATCH;
    return flags;
}
