/* What holds a pod's namespaces open: it sleeps until it is told to end. The image of it is built on the spot, because
   a test machine has no registry to pull one from. */
#include <signal.h>
#include <unistd.h>

static void end(int signal) { _exit(signal == SIGTERM || signal == SIGINT ? 0 : 1); }

int main(void) {
    signal(SIGTERM, end); /* The first process of a pid namespace gets no default action. */
    signal(SIGINT, end);
    for (;;) pause();
}
