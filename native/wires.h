/* Wires between a vCPU worker and interrupt controllers that are devices of a shard: accesses at addresses of their own.
 *
 * They are memory-mapped addresses above any guest-physical one (52 bits), so that no guest can make them, and they are
 * routed, journaled and recovered like every other access. Lines are numbered as global system interrupts, 0 to 23.
 */
#ifndef SHARDIO_WIRES_H
#define SHARDIO_WIRES_H

#define SIO_PIC_WIRES 0xffffffffffff0000ull
#define SIO_IOAPIC_WIRES 0xffffffffffff1000ull
#define SIO_WIRES_SIZE 16u

/* A write of 8 bytes: bits 0-23 are lines that saw an edge (a rise and a fall; of a line that is high, a fall and a rise), bits
 * 32-55 lines that are high now. */
#define SIO_WIRES_LINES 0u
/* PIC alone, a read of 4 bytes: the INTA cycle, which acknowledges an interrupt and gives its vector. */
#define SIO_WIRES_INTA 8u

/* Words about lines: bit n is line n, which is to be pulsed, or is high. The PIC's output to the boot processor is a line that
 * goes to no controller. Where the controllers are devices, replies say besides that a line has gone up or down. */
#define SIO_WIRED_LINES 24u
#define SIO_WIRED_MASK 0xffffffu
#define SIO_LINE_EXTINT (1u << 24)
#define SIO_LINE_HOLD (1u << 29)         /* no line: the access asked for the machine's end (vcpu_loop.h) */
#define SIO_LINE_OUTPUT_MOVED (1u << 30)
#define SIO_LINE_MOVED (1u << 31)

/* A write of 4 bytes, the vector: ends a level interrupt (the EOI register of IOAPICs of version 0x20 and later). */
#define SIO_IOAPIC_EOI 0xfec00040ull

#endif
