/* The ESP8266: UART0 with interrupts, the SPI flash controller, the cycle counter, and what the boot ROM lends. */
#ifndef HW_ESP8266_H
#define HW_ESP8266_H

#define REG(address) (*(volatile u32 *)(address))

/* A block of registers behind one base, which the compiler must not fold into an address per register. */
static inline volatile u32 *block_at(u32 address) {
    __asm__("" : "+r"(address));
    return (volatile u32 *)address;
}

/* UART0 (ESP8266 technical reference, "UART"). */
#define UART block_at(0x60000000)
#define UART_FIFO UART[0]
#define UART_INT_ST UART[2]
#define UART_INT_ENA UART[3]
#define UART_INT_CLR UART[4]
#define UART_CLKDIV UART[5]
#define UART_STATUS UART[7]
#define UART_CONF1 UART[9]
enum { INT_RX_FULL = 1, INT_TX_EMPTY = 2, INT_FRAMING = 8, INT_OVERFLOW = 16, INT_RX_IDLE = 256 };
enum {
    FIFO_SIZE = 128,
    RX_THRESHOLD = 48, /* interrupt with 80 bytes to spare: 0.86 ms at 921600 */
    TX_THRESHOLD = 32,
    IDLE_BYTES = 2,
};

/* SPI0, the flash. */
#define SPI block_at(0x60000200)
#define SPI_CMD SPI[0]
#define HW_SPI_ADDRESS SPI[1]
#define HW_SPI_STATUS SPI[4]
#define hw_spi_words (SPI + 16)

#define hw_fuses ((const u32 *)0x3ff00050)
#define WATCHDOG SPI[0x700 / 4]     /* 0x60000900, bit 0: on */
#define RTC_CONTROL REG(0x60000700) /* bit 31: software reset */

/* Boot ROM, the one version known ("ets Jan  8 2013"); addresses from its public symbol table. */
#define ROM(address, result, ...) ((result(*)(__VA_ARGS__))(address))
#define ets_isr_attach ROM(0x40000f88, void, u32, void (*)(void *), void *)
#define ets_isr_mask ROM(0x40000f98, void, u32)
#define ets_isr_unmask ROM(0x40000fa8, void, u32)
#define SelectSpiFunction ROM(0x40003f58, void, void)
#define spi_flash_attach ROM(0x40004644, void, u32, u32)
#define hw_md5_start ROM(0x40009818, void, void *)                  /* MD5Init: context, 88 bytes */
#define hw_md5_add ROM(0x40009834, void, void *, const void *, u32) /* MD5Update */
#define hw_md5_end ROM(0x40009900, void, u8 *, void *)              /* MD5Final */

/* In ROM main(): where user code returns to, and its `call0 boot_from_flash`. */
enum { ROM_RETURN = 0x40001100, ROM_BOOT = 0x400010a8, ROM_BOOT_WORD = 0x160025c5 };

enum { IRQ_UART = 5, IRQ_TIMER = 6 };
enum { BOOT_DIVIDER = 0x2b6 }; /* reset value: 74880 with a 26 MHz crystal */

/* Crystal of 26 MHz: bus and CPU 52 MHz. With 40 MHz all waits are shorter by a third and still generous. */
static inline u32 hw_ms(u32 ms) { return ms * 52000u; }

static inline u32 hw_cycles(void) {
    u32 c;
    __asm__ volatile("rsr %0, ccount" : "=a"(c));
    return c;
}

/* Writing CCOMPARE also clears the timer's interrupt. */
static inline void alarm_at(u32 cycle) { __asm__ volatile("wsr %0, ccompare0; esync" ::"a"(cycle)); }

/* Interrupts are off between the last look and the sleep; `waiti 0` lets them in, and wakes at once if one waits. */
static inline void hush(void) { __asm__ volatile("rsil a2, 1" ::: "a2", "memory"); }
static inline void unhush(void) { __asm__ volatile("rsil a2, 0" ::: "a2", "memory"); }

enum { SHORTEST = 300, LONGEST_NAP = 0x40000000 };

static void doze(u32 cycles) {
    if (cycles < SHORTEST) cycles = SHORTEST; /* a moment that is over before it is set would sleep for 82 s */
    if (cycles > LONGEST_NAP) cycles = LONGEST_NAP;
    alarm_at(hw_cycles() + cycles);
    __asm__ volatile("waiti 0" ::: "memory");
}

static void hw_nap(u32 cycles) {
    hush();
    doze(cycles);
}

static void hw_listen(u32 cycles) {
    hush();
    if (g.rx_in == g.rx_out) doze(cycles);
    else unhush();
}

static inline void rx_push(u32 byte);

static void on_uart(void *unused) {
    u32 why = UART_INT_ST;
    (void)unused;
    while (UART_STATUS & 255) rx_push(UART_FIFO & 255);
    if (why & INT_OVERFLOW) g.lost_fifo++;
    if (why & INT_FRAMING) g.framing++;
    if (why & INT_TX_EMPTY) {
        u32 out = g.tx_out, room = FIFO_SIZE - 2 - (UART_STATUS >> 16 & 255);
        while (out != g.tx_in && (s32)room-- > 0) UART_FIFO = g.tx[out++ & (TX_RING - 1)];
        g.tx_out = out;
        if (out == g.tx_in) UART_INT_ENA &= ~INT_TX_EMPTY;
    }
    UART_INT_CLR = why;
}

static void on_timer(void *unused) {
    (void)unused;
    alarm_at(hw_cycles() + 0x7fffffff);
}

static void hw_transmit(void) {
    hush();
    UART_INT_ENA |= INT_TX_EMPTY;
    unhush();
}

static u32 hw_divider(void) { return UART_CLKDIV & 0xfffff; }

static void hw_drain(void) {
    u32 since = hw_cycles();
    while ((g.tx_in != g.tx_out || UART_STATUS >> 16 & 255) && hw_cycles() - since < hw_ms(5000)) hw_nap(hw_ms(1) / 4);
    hw_nap(hw_divider() * 12); /* the byte in the shift register */
}

static void hw_set_divider(u32 divider) { UART_CLKDIV = divider; }

static u32 hw_spi(u32 bit) {
    u32 since = hw_cycles();
    SPI_CMD = 1u << bit;
    while (SPI_CMD)
        if (hw_cycles() - since > hw_ms(SPI_MS)) return 0;
    return 1;
}

static u32 hw_can_boot(void) { return g.came_from == ROM_RETURN && REG(ROM_BOOT) == ROM_BOOT_WORD; }

static u32 serve(void);

/* Called by entry.S with the return address into the boot ROM. The result says whether to go there (0) or to start the
 * application (1). */
u32 start(u32 came_from) {
    u32 divider = UART_CLKDIV & 0xfffff, conf1 = UART_CONF1, watchdog, how;
    for (u32 *p = (u32 *)&g; p < (u32 *)(&g + 1); p++) *p = 0;
    g.came_from = came_from;
    watchdog = WATCHDOG;
    WATCHDOG = watchdog & ~1u;
    SelectSpiFunction();
    spi_flash_attach(0, 0);

    UART_INT_ENA = 0;
    ets_isr_attach(IRQ_UART, on_uart, 0);
    ets_isr_attach(IRQ_TIMER, on_timer, 0);
    alarm_at(hw_cycles() + LONGEST_NAP);
    UART_CONF1 = RX_THRESHOLD | TX_THRESHOLD << 8 | IDLE_BYTES << 24 | 1u << 31;
    UART_INT_CLR = ~0u;
    UART_INT_ENA = INT_RX_FULL | INT_RX_IDLE | INT_FRAMING | INT_OVERFLOW;
    ets_isr_unmask(1 << IRQ_UART | 1 << IRQ_TIMER);
    unhush();

    how = serve();

    ets_isr_mask(1 << IRQ_UART | 1 << IRQ_TIMER);
    UART_INT_ENA = 0;
    UART_INT_CLR = ~0u;
    UART_CONF1 = conf1;
    UART_CLKDIV = how == LEAVE_RETURN ? divider : BOOT_DIVIDER;
    WATCHDOG = watchdog;
    if (how == LEAVE_RESET) {
        RTC_CONTROL |= 1u << 31;
        for (;;) {
        }
    }
    return how == LEAVE_BOOT;
}
#endif
