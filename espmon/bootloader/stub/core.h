/* Shared by every part of the stub: types, protocol numbers and what the hardware layer gives.
 *
 * The stub is one translation unit: stub.c includes the parts. The same parts are compiled for the ESP8266
 * (hw_esp8266.h) and for the host with sanitizers and a model of the flash chip (host/hw_host.h).
 * The protocol, the memory map and the reasons are in docs/design/stub.md.
 */
#ifndef CORE_H
#define CORE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;

enum {
    PROTOCOL = 1,

    SECTOR = 4096,
    BLOCK = 65536,
    PIECE = 64, /* one SPI command programs at most the 16 words W0..W15 */
    LOOK = 32,  /* and reads half of that, as the ROM does: reading 64 hangs real chips (esp-open-rtos found) */

    /* Host's credit: at most WINDOW bytes of data frames sent and not acknowledged. Twice that fits into the ring,
     * so the frames that a NAK made stale and the ones sent again never meet a full ring. */
    WINDOW = 16384,
    RX_RING = 32768,
    TX_RING = 4096,

    FRAME_HEAD = 4,
    FRAME_BODY = 4096,
    FRAME_CRC = 4,
    MAP_DIGESTS = 64, /* digests in one map frame */
};

/* First byte of a frame. A reply carries the command's number with REPLY set. */
enum {
    OP_HELLO = 0x01,
    OP_MAP = 0x02,
    OP_WRITE = 0x03,
    OP_DATA = 0x04,
    OP_POLL = 0x05,
    OP_READ = 0x06,
    OP_DIGEST = 0x07,
    OP_ERASE = 0x08,
    OP_RATE = 0x09,
    OP_UNLOCK = 0x0a,
    OP_LEAVE = 0x0b,
    REPLY = 0x80,
    OP_NAK = 0x90,
    OP_SECTOR = 0x91,
    OP_END = 0x92,
};

/* Status of a reply. */
enum {
    ST_OK = 0,
    ST_COMMAND = 1,   /* no such command, or a body of the wrong size */
    ST_RANGE = 2,     /* not whole sectors, or beyond the end of the chip */
    ST_NO_CHIP = 3,   /* the chip does not answer, or its size is unknown and was not given */
    ST_PROTECTED = 4, /* protection bits are set, or the chip did not take the write enable */
    ST_TIMEOUT = 5,   /* the chip stayed busy */
    ST_DEFLATE = 6,   /* the compressed stream is invalid */
    ST_SILENCE = 7,   /* no data from the host for SILENCE_MS */
    ST_ABORTED = 8,   /* another command came in the middle of a write */
    ST_VERIFY = 9,    /* read back differently from what was received */
    ST_NO_BOOT = 10,  /* not this boot ROM: cannot start the application from here */
    ST_NONE = 11,     /* poll: no write since the start */
    ST_ACTIVE = 12,   /* poll: a write is under way */
};

/* Flags of a sector report. */
enum {
    SEC_SAME = 1,     /* held these bytes already */
    SEC_ERASED = 2,   /* was erased by itself (not with its 64 KB block) */
    SEC_MISMATCH = 4, /* read back differently */
};

enum { WRITE_DEFLATE = 1 };
enum { LEAVE_RETURN = 0, LEAVE_RESET = 1, LEAVE_BOOT = 2 };

/* SPI_FLASH_CMD bits of the ESP8266's flash controller. */
enum {
    SPI_READ = 31, SPI_WREN = 30, SPI_RDID = 28, SPI_RDSR = 27, SPI_WRSR = 26, SPI_PP = 25, SPI_SE = 24, SPI_BE = 23,
    SPI_RES = 20, /* release from deep power-down */
};
enum { SR_BUSY = 1, SR_WEL = 2, SR_PROTECT = 0x7c }; /* BP0..2, TB, SEC (or BP3, BP4): Winbond, GigaDevice, XMC, Macronix */

enum { DIVIDER_MIN = 13, DIVIDER_MAX = 0xfffff };

/* Milliseconds. */
enum {
    SILENCE_MS = 10000,
    CONFIRM_MS = 3000, /* after a rate change */
    SPI_MS = 20,       /* one command of the controller */
    PROGRAM_MS = 50,   /* data sheets: 5 at most */
    ERASE_MS = 10000,  /* data sheets: 0.4 s for 4 KB, 3 s for 64 KB at most */
};

/* Everything that is not code. No initialised data: the ROM loader brings one segment, start() clears this. */
static struct {
    /* First what is used often: one base register and a short offset reach it. */
    u32 came_from;

    /* bytes from and to the wire, shared with the interrupt */
    u32 rx_in, rx_out, tx_in, tx_out; /* not volatile: whoever waits sleeps in between, which tells the compiler */

    /* frame being taken out of the ring */
    u32 have, left, gap, any;

    /* flash */
    u32 forced_size;
    u32 fault; /* of the last flash operation: ST_... */

    /* in the order in which HELLO tells them */
    u32 chip, chip_size, bad_frames, lost_ring, lost_fifo, framing;

    /* the write under way, or the last one; the first five in the order in which POLL and END tell them */
    u32 tag, base, length, done, next;
    u32 status, nak, epoch, used;
    u32 redo; /* a command came in its middle and waits in the frame buffer */
    const u8 *in, *in_end;

    /* inflate */
    u32 hold, bits;
    u16 lit_count[16], dist_count[16];
    u32 small[1 + 2 + MAP_DIGESTS + 8]; /* frames to send, but for READ's, which are made in the window */
    u32 frame[(FRAME_HEAD + FRAME_BODY + FRAME_CRC + 12) / 4];

    u16 lit_fast[512], dist_fast[128];
    u16 lit_symbol[288], dist_symbol[32];
    u8 lengths[320];
    u32 crc_table[4 * 256];
    u8 rx[RX_RING];
    u8 tx[TX_RING];
    u32 window[32768 / 4]; /* the last 32 KB decoded; a sector is programmed from here */
} g;

/* What the hardware layer gives (hw_esp8266.h, host/hw_host.h):
 *   u32  hw_cycles(void)              a free running clock
 *   u32  hw_ms(u32 ms)                milliseconds in its ticks
 *   void hw_nap(u32 cycles)           sleep that long or until an interrupt
 *   void hw_listen(u32 cycles)        the same, unless the ring holds bytes
 *   void hw_transmit(void)            there are bytes in the transmit ring
 *   void hw_drain(void)               until all is on the wire
 *   u32  hw_divider(void), void hw_set_divider(u32)
 *   volatile u32 *hw_spi_words, HW_SPI_ADDRESS, HW_SPI_STATUS; u32 hw_spi(u32 bit)
 *   const u32 *hw_fuses               four words: MAC address and package
 *   void hw_md5_start(context), hw_md5_add(context, bytes, n), hw_md5_end(digest, context)
 *   u32  hw_can_boot(void)
 */
#endif
