/* A very small heap: blocks of one size class, first fit. */
#include "station.h"

#define HEAP 2048

struct block {
    size_t size;
    size_t used;
};

static uint32_t heap[HEAP / 4];
void *failed_caller;
size_t failed_size;

static struct block *first(void)
{
    struct block *b = (struct block *)heap;
    if (b->size == 0)
        b->size = HEAP - sizeof *b;
    return b;
}

static struct block *after(struct block *b)
{
    struct block *next = (struct block *)((char *)(b + 1) + b->size);
    return (char *)next < (char *)heap + HEAP ? next : NULL;
}

static void *fitting(size_t size)
{
    for (struct block *b = first(); b; b = after(b)) {
        if (b->used || b->size < size)
            continue;
        if (b->size >= size + sizeof *b + 8) {
            struct block *rest = (struct block *)((char *)(b + 1) + size);
            rest->size = b->size - size - sizeof *b;
            rest->used = 0;
            b->size = size;
        }
        b->used = 1;
        return b + 1;
    }
    return NULL;
}

void *take(size_t size)
{
    size = (size + 7u) & ~7u;
    void *memory = fitting(size);
    if (!memory) {
        failed_caller = __builtin_return_address(0);
        failed_size = size;
        give_up();
    }
    return memory;
}

void give(void *memory)
{
    ((struct block *)memory - 1)->used = 0;
}

size_t memory_left(void)
{
    size_t left = 0;
    for (struct block *b = first(); b; b = after(b))
        if (!b->used)
            left += b->size;
    return left;
}
