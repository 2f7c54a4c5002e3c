/* A stand-in for NVIDIA's driver library libcuda.so.1 and its management library libnvidia-ml.so.1.
 *
 * It answers as a driver does that is too old, sees no GPU, or finds it taken, so that a real CuPy
 * on a machine without a GPU says what it would say there. What to answer is in the environment:
 *   STUB_DRIVER_VERSION   what cuDriverGetVersion tells, 1000 * major + 10 * minor
 *   STUB_INIT_STATUS      what cuInit returns (CUresult; 100 = no device, 46 = unavailable)
 *   STUB_FREE_BYTES       free memory of the GPUs 0000:01:00.0, 0000:02:00.0, ... by NVML: "1,8"
 *
 * It cannot pretend that a GPU is there: before the first device is used, the CUDA runtime inside
 * CuPy asks the driver to prove that it is NVIDIA's (cudaErrorSoftwareValidityNotEstablished).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_FOUND = 500 };

static int from_environment(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

/* The driver. The runtime looks these up, by name or through cuGetProcAddress. */

int cuDriverGetVersion(int *version) {
    *version = from_environment("STUB_DRIVER_VERSION", 12090);
    return SUCCESS;
}

int cuInit(unsigned flags) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    (void)flags;
    if (visible && !*visible) return 100; /* as the driver does: CUDA_ERROR_NO_DEVICE */
    return from_environment("STUB_INIT_STATUS", 100);
}

static int not_in_the_stub(void) { return NOT_FOUND; }

int cuGetExportTable(const void **table, const void *id) {
    (void)table, (void)id;
    return NOT_FOUND;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        int *status) {
    (void)version, (void)flags;
    *function = (void *)not_in_the_stub;
    if (!strcmp(name, "cuInit")) *function = (void *)cuInit;
    if (!strcmp(name, "cuDriverGetVersion")) *function = (void *)cuDriverGetVersion;
    if (!strcmp(name, "cuGetExportTable")) *function = (void *)cuGetExportTable;
    if (!strcmp(name, "cuGetProcAddress")) *function = (void *)cuGetProcAddress_v2;
    if (status) *status = 0;
    return SUCCESS;
}

/* The management library. A handle is the address of the GPU's entry in free_bytes. */

static unsigned long long free_bytes[16];
static int gpu_count;

int nvmlInit_v2(void) {
    const char *text = getenv("STUB_FREE_BYTES");
    for (gpu_count = 0; text && *text && gpu_count < 16; gpu_count++) {
        char *end;
        free_bytes[gpu_count] = strtoull(text, &end, 10);
        text = *end ? end + 1 : end;
    }
    return SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **handle) {
    unsigned bus = 0;
    if (sscanf(address, "0000:%x:00.0", &bus) != 1 || bus < 1 || bus > (unsigned)gpu_count)
        return 6; /* NVML_ERROR_NOT_FOUND */
    *handle = &free_bytes[bus - 1];
    return SUCCESS;
}

struct memory { unsigned long long total, free, used; }; /* nvmlMemory_t */

int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    memory->total = 1ull << 40;
    memory->free = *(unsigned long long *)handle;
    memory->used = memory->total - memory->free;
    return SUCCESS;
}
