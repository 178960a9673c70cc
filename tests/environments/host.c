/* host PLUGIN: a program in C that loads a library in which procession runs, and calls it. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    void *plugin = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    int (*run)(void) = plugin ? (int (*)(void))dlsym(plugin, "run_procession") : NULL;
    if (!run) {
        fprintf(stderr, "host: %s\n", argc > 1 ? dlerror() : "no plugin is given");
        return 125;
    }
    return run();
}
