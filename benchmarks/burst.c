/* Sends UDP datagrams at a steady rate, for benchmarks/capture.py.
 *
 *     burst HOST PORT RATE COUNT SIZE
 *
 * COUNT datagrams of SIZE bytes to an IPv4 address, RATE a second, in small groups. Prints how many
 * were sent and how long that took, in seconds. */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { GROUP = 20, MAX_SIZE = 1400, USAGE = 64, FAILED = 74 }; /* the latter two of sysexits.h */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    if (argc != 6 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
        fprintf(stderr, "usage: burst HOST PORT RATE COUNT SIZE\n");
        return USAGE;
    }
    int port = atoi(argv[2]);
    double rate = atof(argv[3]);
    long count = atol(argv[4]), size = atol(argv[5]);
    if (port < 1 || port > 65535 || rate < 1 || count < 0 || size < 0 || size > MAX_SIZE) {
        fprintf(stderr, "burst: a number is out of range\n");
        return USAGE;
    }
    to.sin_port = htons((unsigned short)port);
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    if (sock < 0 || connect(sock, (struct sockaddr *)&to, sizeof to) != 0) {
        perror("burst");
        return FAILED;
    }
    char data[MAX_SIZE];
    memset(data, 'x', sizeof data);
    double begin = now();
    for (long sent = 0; sent < count; sent++) {
        if (sent % GROUP == 0)
            while (now() < begin + (double)sent / rate)
                ;
        if (send(sock, data, (size_t)size, 0) < 0) {
            perror("burst: send");
            return FAILED;
        }
    }
    printf("%ld %.6f\n", count, now() - begin);
    return 0;
}
