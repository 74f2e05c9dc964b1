/* The default floating-point environment: round to nearest, no flushing of denormals, no traps. Private. */
#ifndef SPARSEC_FLOAT_ENV_H
#define SPARSEC_FLOAT_ENV_H

#include <stdint.h>

#if defined(__x86_64__)
static inline uint64_t sparsec_float_env_default(void) {
    uint32_t old = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(0x1f80);
    return old;
}
static inline void sparsec_float_env_restore(uint64_t old) { __builtin_ia32_ldmxcsr((uint32_t)old); }
#elif defined(__aarch64__)
static inline uint64_t sparsec_float_env_default(void) {
    uint64_t old, none = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    if (old != none) __asm__ volatile("msr fpcr, %0" : : "r"(none));
    return old;
}
static inline void sparsec_float_env_restore(uint64_t old) {
    if (old != 0) __asm__ volatile("msr fpcr, %0" : : "r"(old));
}
#else
static inline uint64_t sparsec_float_env_default(void) { return 0; }
static inline void sparsec_float_env_restore(uint64_t old) { (void)old; }
#endif

#endif
