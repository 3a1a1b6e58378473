#include "crc32.h"

#include <inttypes.h>
#include <stdio.h>

/* Prints the checksum of each file, as `checksum size name`. */
int main(int argc, char **argv)
{
    int failures = 0;

    for (int i = 1; i < argc; i++) {
        unsigned char buffer[65536];
        uint32_t crc = 0;
        uint64_t size = 0;
        size_t n;
        FILE *file = fopen(argv[i], "rb");

        if (file == NULL) {
            perror(argv[i]);
            failures++;
            continue;
        }
        while ((n = fread(buffer, 1, sizeof buffer, file)) > 0) {
            crc = crc32_update(crc, buffer, n);
            size += n;
        }
        if (ferror(file)) {
            perror(argv[i]);
            failures++;
        } else {
            printf("%08" PRIx32 " %" PRIu64 " %s\n", crc, size, argv[i]);
        }
        fclose(file);
    }
    return failures ? 1 : 0;
}
