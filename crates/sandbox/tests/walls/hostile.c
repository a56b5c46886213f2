/* A template that means harm: one trick by name, then a server that tells on port 8080 what came of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static volatile int unfiltered, ran, answer;

/* The filter answers EPERM; the kernel's own code, EFAULT. */
static void try_filter(void) {
    ran++;
    long got = syscall(SYS_name_to_handle_at, -100, 1, 1, 1, 0);
    if (got != -1 || errno != EPERM) { answer = errno; unfiltered++; }
}

static void on_signal(int number) { (void)number; try_filter(); }

static void *spin(void *none) {
    for (;;) try_filter();
    return none;
}

static int beside(void *none) {
    (void)none;
    for (;;) { ran++; usleep(1000); }
    return 0;
}

/* A thread that makes the next one and ends. */
static void *chain(void *none) {
    pthread_t next;
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    ran++;
    while (pthread_create(&next, &detached, chain, none)) usleep(100);
    return none;
}

/* Where the engine's list stops for the tracer, from the region's begin, and how large the region is. */
static void region(char *to, size_t room) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    unsigned long from, end, code_end = 0;
    char rights[5];
    snprintf(to, room, "none");
    while (fgets(line, sizeof line, maps)) {
        int at = 0;
        sscanf(line, "%lx-%lx %4s %*x %*s %*d %n", &from, &end, rights, &at);
        if (!strcmp(rights, "r-xp") && end - from == 4096 && (line[at] == '\n' || !line[at])) code_end = end;
        else if (!strcmp(rights, "rw-p") && from == code_end) {
            for (uint32_t *word = (uint32_t *)from; (unsigned long)(word + 36) < end; word += 2) {
                int zero = 1;
                for (int n = 1; n < 18; n++) zero &= word[n] == 0;
                if (word[0] == 4 && zero && word[18] == 1 && word[19] == 1 && word[20] == SYS_close)
                    snprintf(to, room, "%lu %lu", end - from + 4096, (unsigned long)word - from + 4096);
            }
        }
    }
    fclose(maps);
}

int main(int count, char **words) {
    const char *trick = count > 1 ? words[1] : "none";
    pthread_t thread;
    if (!strcmp(trick, "alarm")) {
        struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
        struct itimerval often = { { 0, 20000 }, { 0, 20000 } };
        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &often, NULL);
    } else if (!strcmp(trick, "spin")) {
        pthread_create(&thread, NULL, spin, NULL);
    } else if (!strcmp(trick, "beside")) {
        char *stack = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        clone(beside, stack + (1 << 20), CLONE_VM | CLONE_PARENT | SIGCHLD, NULL);
    } else if (!strcmp(trick, "chain")) {
        pthread_create(&thread, NULL, chain, NULL);
    }
    int server = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(8080) };
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(server, (void *)&address, sizeof address) || listen(server, 64)) return 1;
    if (!strcmp(trick, "address")) {
        size_t size = strtoul(words[2], NULL, 10), at = strtoul(words[3], NULL, 10);
        char *here = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(here, size);
        syscall(SYS_set_tid_address, here + at);
    }
    if (write(1, "ready\n", 6) != 6) return 1;
    for (;;) {
        char text[512], body[256], place[64] = "";
        int client = accept(server, NULL, NULL);
        if (client < 0) continue;
        ssize_t got = 0, part;
        while (got < 4 || memcmp(text + got - 4, "\r\n\r\n", 4)) {
            part = read(client, text + got, sizeof text - got);
            if (part <= 0) break;
            got += part;
        }
        if (got > 5 && text[5] == 'r') region(place, sizeof place);
        int length = snprintf(body, sizeof body, "%s", place);
        if (!length) length = snprintf(body, sizeof body, "ran %d unfiltered %d errno %d", ran, unfiltered, answer);
        int total = snprintf(text, sizeof text, "HTTP/1.0 200 OK\r\n\r\n%s", body);
        if (write(client, text, total) < 0) return 1;
        close(client);
    }
}
