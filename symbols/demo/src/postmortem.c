/* The last words: what a crashed station prints, in the layout that ESP8266 people know from their Arduino boards. */
#include "station.h"

struct exception_frame {
    uint32_t a[16]; /* a[1]: the stack pointer before the exception */
    uint32_t epc1, ps, sar, cause, address, reserved[3];
};

extern uint32_t stack_top[];
extern const char division_by_zero[];
int watchdog_bites(void);

#define CUT "--------------- CUT HERE FOR EXCEPTION DECODER ---------------"
#define READ(name)                                              \
    ({                                                          \
        uint32_t value_;                                        \
        __asm__ volatile("rsr." #name " %0" : "=r"(value_)); \
        value_;                                                 \
    })

static void print_stack(uint32_t sp, uint32_t offset)
{
    uint32_t end = (uint32_t)stack_top;
    say("\n>>>stack>>>\n\nctx: cont\nsp: %x end: %x offset: %h\n", sp, end, offset);
    for (uint32_t at = sp + offset; at < end; at += 16) {
        const uint32_t *w = (const uint32_t *)at;
        if (w[0] == 0xfeefeffe && w[1] == w[0] && w[2] == w[0] && w[3] == w[0])
            continue;
        say("%x:  %x %x %x %x %s\n", at, w[0], w[1], w[2], w[3], w[2] == at + 16 ? "<" : " ");
    }
    say("<<<stack<<<\n");
}

static void last_alloc(void)
{
    if (failed_size)
        say("\nlast failed alloc call: %x(%u)\n", (uint32_t)failed_caller, (uint32_t)failed_size);
}

/* Called by the vector with the registers saved below the interrupted stack pointer. */
void exception(struct exception_frame *frame)
{
    if (frame->cause == 4 && !watchdog_bites())
        return;
    uint32_t cause = frame->cause;
    if (cause == 0 && frame->epc1 == (uint32_t)division_by_zero)
        cause = 6;
    say("\n" CUT "\n");
    if (cause == 4)
        say("\nSoft WDT reset\n");
    say("\nException (%u):\nepc1=0x%x epc2=0x%x epc3=0x%x excvaddr=0x%x depc=0x%x\n", cause, frame->epc1, READ(epc2),
        READ(epc3), frame->address, READ(depc));
    uint32_t sp = (uint32_t)frame;
    print_stack(sp, frame->a[1] - sp);
    last_alloc();
    say("\n" CUT "\n\n");
    restart();
}

void give_up(void)
{
    uint32_t sp = (uint32_t)__builtin_frame_address(0);
    say("\nUser exception (panic/abort/assert)\n" CUT "\n\nAbort called\n");
    print_stack(sp, 0);
    last_alloc();
    say("\n" CUT "\n\n");
    restart();
}
