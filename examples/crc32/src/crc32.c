#include "crc32.h"

uint32_t crc32_update(uint32_t crc, const void *data, size_t length)
{
    const unsigned char *bytes = data;

    crc = ~crc;
    while (length-- > 0) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}
