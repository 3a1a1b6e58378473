#ifndef CRC32_H
#define CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 at the start) over `length` bytes; the CRC-32 of IEEE 802.3. */
uint32_t crc32_update(uint32_t crc, const void *data, size_t length);

#endif
