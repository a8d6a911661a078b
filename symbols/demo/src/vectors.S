/* Exception vectors at 0x40100000 (VECBASE) and the start code. Offsets are the lx106's: debug 0x10, NMI 0x20,
 * kernel 0x30, user 0x50, double 0x70. */
    .section .vectors, "ax"
    .global vectors
    .align 256
vectors:
    .org vectors + 0x10
    break 0, 0
    .org vectors + 0x20
    rfi 3
    .org vectors + 0x30
    wsr.excsave1 a0
    j enter
    .org vectors + 0x50
    wsr.excsave1 a0
    j enter
    .org vectors + 0x70
    break 1, 1
    .org vectors + 0x78

    .align 4
at_exception:
    .word exception
at_start_c:
    .word start_c
at_vectors:
    .word vectors
at_stack_top:
    .word stack_top

/* 0x60 bytes of registers below the interrupted stack pointer, then the C handler on the same stack. */
enter:
    addi a1, a1, -0x60
    s32i a2, a1, 8
    s32i a3, a1, 12
    rsr.excsave1 a2
    s32i a2, a1, 0
    addi a2, a1, 0x60
    s32i a2, a1, 4
    s32i a4, a1, 16
    s32i a5, a1, 20
    s32i a6, a1, 24
    s32i a7, a1, 28
    s32i a8, a1, 32
    s32i a9, a1, 36
    s32i a10, a1, 40
    s32i a11, a1, 44
    s32i a12, a1, 48
    s32i a13, a1, 52
    s32i a14, a1, 56
    s32i a15, a1, 60
    rsr.epc1 a2
    s32i a2, a1, 64
    rsr.ps a2
    s32i a2, a1, 68
    rsr.sar a2
    s32i a2, a1, 72
    rsr.exccause a2
    s32i a2, a1, 76
    rsr.excvaddr a2
    s32i a2, a1, 80
    mov a2, a1
    l32r a0, at_exception
    callx0 a0
    l32i a2, a1, 64
    wsr.epc1 a2
    l32i a2, a1, 68
    wsr.ps a2
    l32i a2, a1, 72
    wsr.sar a2
    rsync
    l32i a0, a1, 0
    l32i a2, a1, 8
    l32i a3, a1, 12
    l32i a4, a1, 16
    l32i a5, a1, 20
    l32i a6, a1, 24
    l32i a7, a1, 28
    l32i a8, a1, 32
    l32i a9, a1, 36
    l32i a10, a1, 40
    l32i a11, a1, 44
    l32i a12, a1, 48
    l32i a13, a1, 52
    l32i a14, a1, 56
    l32i a15, a1, 60
    addi a1, a1, 0x60
    rfe

    .align 4
    .global start
    .type start, @function
start:
    movi a2, 0x1f
    wsr.ps a2
    rsync
    l32r a2, at_vectors
    wsr.vecbase a2
    l32r a1, at_stack_top
    /* region 0 (null pointers) allows nothing, as the boot ROM leaves it: loads are cause 28, stores 29, calls 20 */
    movi a2, 0
    movi a3, 15
    wdtlb a3, a2
    witlb a3, a2
    dsync
    isync
    l32r a0, at_start_c
    callx0 a0
1:  j 1b
    .size start, . - start
