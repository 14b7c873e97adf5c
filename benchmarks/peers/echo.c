/* Echo over TCP and UDP in C: one level-triggered epoll loop, the floor that others are held to. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_BYTES (256 * 1024)
#define MAX_EVENTS 512
#define UDP_BATCH 64 /* datagrams served before the streams get their turn */

struct connection {
    int fd;
    char *pending; /* what the peer has not taken yet; while there is any, it is not read */
    size_t pending_size;
};

static int epoll_fd;
static char buffer[BUFFER_BYTES];
static struct connection listener, datagrams;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event) != 0) die("epoll_ctl");
}

static void end(struct connection *c) {
    close(c->fd);
    free(c->pending);
    free(c);
}

static void accept_all(void) {
    int one = 1;
    for (int fd; (fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct connection *c = calloc(1, sizeof *c);
        if (c == NULL) die("calloc");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void read_and_echo(struct connection *c) {
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        end(c);
        return;
    }
    ssize_t sent = send(c->fd, buffer, (size_t)got, MSG_NOSIGNAL);
    if (sent == got) return;
    if (sent < 0 && errno != EAGAIN) {
        end(c);
        return;
    }
    if (sent < 0) sent = 0;
    c->pending_size = (size_t)(got - sent);
    c->pending = malloc(c->pending_size);
    if (c->pending == NULL) die("malloc");
    memcpy(c->pending, buffer + sent, c->pending_size);
    watch(c, EPOLL_CTL_MOD, EPOLLOUT);
}

static void flush(struct connection *c) {
    ssize_t sent = send(c->fd, c->pending, c->pending_size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) {
        end(c);
        return;
    }
    c->pending_size -= (size_t)sent;
    memmove(c->pending, c->pending + sent, c->pending_size);
    if (c->pending_size > 0) return;
    free(c->pending);
    c->pending = NULL;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void echo_datagrams(void) {
    for (int i = 0; i < UDP_BATCH; i++) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        ssize_t got =
            recvfrom(datagrams.fd, buffer, sizeof buffer, 0, (struct sockaddr *)&peer, &size);
        if (got < 0) return;
        sendto(datagrams.fd, buffer, (size_t)got, 0, (struct sockaddr *)&peer, size);
    }
}

static int open_bound(int type, uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
    return fd;
}

int main(int argc, char **argv) {
    struct epoll_event events[MAX_EVENTS];
    uint16_t port = (uint16_t)(argc == 2 ? atoi(argv[1]) : 0);
    if (port == 0) {
        fputs("usage: echo PORT\n", stderr);
        return 64;
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) die("epoll_create1");
    datagrams.fd = open_bound(SOCK_DGRAM, port);
    watch(&datagrams, EPOLL_CTL_ADD, EPOLLIN);
    listener.fd = open_bound(SOCK_STREAM, port);
    if (listen(listener.fd, 1024) != 0) die("listen");
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == &listener) accept_all();
            else if (c == &datagrams) echo_datagrams();
            else if (c->pending != NULL) flush(c);
            else read_and_echo(c);
        }
    }
}
