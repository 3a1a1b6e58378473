#include "crc32.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct vector {
    const char *name;
    const char *text;
    uint32_t expected;
};

static const struct vector vectors[] = {
    {"empty", "", 0x00000000u},
    {"one letter", "a", 0xe8b7be43u},
    {"check value", "123456789", 0xcbf43926u},
    {"pangram", "The quick brown fox jumps over the lazy dog", 0x414fa339u},
};

enum { COUNT = sizeof vectors / sizeof vectors[0] };

/* In pieces or at once: the result must be the same. */
static uint32_t in_pieces(const char *text)
{
    uint32_t crc = 0;

    for (size_t i = 0; i < strlen(text); i++)
        crc = crc32_update(crc, text + i, 1);
    return crc;
}

/* Runs the vectors; writes JUnit XML to the file named by the first argument. */
int main(int argc, char **argv)
{
    int failures = 0;
    FILE *xml = argc > 1 ? fopen(argv[1], "w") : NULL;

    if (argc > 1 && xml == NULL) {
        perror(argv[1]);
        return 2;
    }
    if (xml)
        fprintf(xml, "<?xml version=\"1.0\"?>\n<testsuite name=\"crc32\" tests=\"%d\">\n", (int)COUNT);
    for (int i = 0; i < COUNT; i++) {
        const struct vector *v = &vectors[i];
        uint32_t whole = crc32_update(0, v->text, strlen(v->text));
        int passed = whole == v->expected && in_pieces(v->text) == v->expected;

        printf("%s %s: %08" PRIx32 "\n", passed ? "ok  " : "FAIL", v->name, whole);
        failures += !passed;
        if (xml) {
            fprintf(xml, "  <testcase classname=\"crc32\" name=\"%s\" file=\"src/test.c\" time=\"0.000\">", v->name);
            if (!passed)
                fprintf(xml, "<failure message=\"expected %08" PRIx32 ", got %08" PRIx32 "\"/>", v->expected, whole);
            fprintf(xml, "</testcase>\n");
        }
    }
    if (xml) {
        fprintf(xml, "</testsuite>\n");
        fclose(xml);
    }
    printf("%d of %d passed\n", COUNT - failures, (int)COUNT);
    return failures ? 1 : 0;
}
