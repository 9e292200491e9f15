/*
 * A libnvidia-ml.so.1 for tests: what it answers is looked up in a file.
 *
 * build.py writes that file, named by $SPARK_AGENT_TEST_NVML, from a machine's nvml.json. It is read anew at each call,
 * so that a test can change the machine under a running agent, and has a line for each answer:
 *
 *     init=SUCCESS
 *     devices=1
 *     system.nvmlSystemGetDriverVersion=580.178.04
 *     0.nvmlDeviceGetPowerUsage=4100
 *     0.nvmlDeviceGetClockInfo.SM=208
 *     0.nvmlDeviceGetMemoryInfo!=NOT_SUPPORTED                      an error, by its name
 *     0.nvmlDeviceGetTotalEnergyConsumption!=HANG                   no answer while this line stands
 *     0.nvmlDeviceGetComputeRunningProcesses.length=1               a list
 *     0.nvmlDeviceGetComputeRunningProcesses.0.pid=4242
 *     0.fields.186=4080
 *
 * A call without a line answers NOT_SUPPORTED; without the file, the driver is not loaded. Functions are listed without
 * the suffix of their version. $SPARK_AGENT_TEST_NVML_LOG gets a line for each call, and for loading and unloading.
 *
 * NVIDIA's nvml.h declares everything that is defined here, so it is the compiler that checks signatures and structs.
 */
#include <nvml.h>

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY = 160, VALUE = 256 };

#define ERROR(name) {NVML_ERROR_##name, #name}
static const struct {
    nvmlReturn_t code;
    const char *name;
} ERRORS[] = {
    ERROR(UNINITIALIZED), ERROR(INVALID_ARGUMENT), ERROR(NOT_SUPPORTED), ERROR(NO_PERMISSION),
    ERROR(ALREADY_INITIALIZED), ERROR(NOT_FOUND), ERROR(INSUFFICIENT_SIZE), ERROR(INSUFFICIENT_POWER),
    ERROR(DRIVER_NOT_LOADED), ERROR(TIMEOUT), ERROR(IRQ_ISSUE), ERROR(LIBRARY_NOT_FOUND),
    ERROR(FUNCTION_NOT_FOUND), ERROR(CORRUPTED_INFOROM), ERROR(GPU_IS_LOST), ERROR(RESET_REQUIRED),
    ERROR(OPERATING_SYSTEM), ERROR(LIB_RM_VERSION_MISMATCH), ERROR(IN_USE), ERROR(MEMORY),
    ERROR(NO_DATA), ERROR(VGPU_ECC_NOT_SUPPORTED), ERROR(INSUFFICIENT_RESOURCES), ERROR(FREQ_NOT_SUPPORTED),
    ERROR(ARGUMENT_VERSION_MISMATCH), ERROR(DEPRECATED), ERROR(NOT_READY), ERROR(GPU_NOT_FOUND),
    ERROR(INVALID_STATE), ERROR(RESET_TYPE_NOT_SUPPORTED), ERROR(UNKNOWN),
};

static const char *const CLOCKS[] = {
    [NVML_CLOCK_GRAPHICS] = "GRAPHICS",
    [NVML_CLOCK_SM] = "SM",
    [NVML_CLOCK_MEM] = "MEM",
    [NVML_CLOCK_VIDEO] = "VIDEO",
};
static const char *const SENSORS[] = {
    [NVML_TEMPERATURE_GPU] = "GPU",
};
static const char *const THRESHOLDS[] = {
    [NVML_TEMPERATURE_THRESHOLD_SHUTDOWN] = "SHUTDOWN",
    [NVML_TEMPERATURE_THRESHOLD_SLOWDOWN] = "SLOWDOWN",
    [NVML_TEMPERATURE_THRESHOLD_MEM_MAX] = "MEM_MAX",
    [NVML_TEMPERATURE_THRESHOLD_GPU_MAX] = "GPU_MAX",
    [NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MIN] = "ACOUSTIC_MIN",
    [NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR] = "ACOUSTIC_CURR",
    [NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MAX] = "ACOUSTIC_MAX",
    [NVML_TEMPERATURE_THRESHOLD_GPS_CURR] = "GPS_CURR",
};

/* A handle is a device's name in the state. */
static struct nvmlDevice_st {
    char name[2];
} devices[] = {{"0"}, {"1"}, {"2"}, {"3"}, {"4"}, {"5"}, {"6"}, {"7"}};

static unsigned int sessions;


/* The state */

/* Copies what stands behind a key and a sign; false where there is no such line. */
static bool find(const char *key, const char *sign, char *value)
{
    const char *path = getenv("SPARK_AGENT_TEST_NVML");
    FILE *state = path ? fopen(path, "r") : NULL;
    char line[KEY + VALUE];
    bool found = false;

    if (!state)
        return false;
    while (!found && fgets(line, sizeof line, state)) {
        line[strcspn(line, "\n")] = '\0';
        found = !strncmp(line, key, strlen(key)) && !strncmp(line + strlen(key), sign, strlen(sign));
    }
    fclose(state);
    if (found)
        snprintf(value, VALUE, "%s", line + strlen(key) + strlen(sign));
    return found;
}

/* Returns the error that a key has instead of an answer, once it has one or the other. */
static nvmlReturn_t refusal(const char *key)
{
    char name[VALUE];

    while (find(key, "!=", name)) {
        if (!strcmp(name, "HANG")) {
            usleep(1000);
            continue;
        }
        for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
            if (!strcmp(name, ERRORS[i].name))
                return ERRORS[i].code;
        return NVML_ERROR_UNKNOWN;
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t look_up(char *value, const char *format, va_list parts)
{
    char key[KEY];

    vsnprintf(key, sizeof key, format, parts);
    nvmlReturn_t status = refusal(key);
    if (status == NVML_SUCCESS && !find(key, "=", value))
        return NVML_ERROR_NOT_SUPPORTED;
    return status;
}

__attribute__((format(printf, 2, 3)))
static nvmlReturn_t number(unsigned long long *answer, const char *format, ...)
{
    char value[VALUE];
    va_list parts;

    va_start(parts, format);
    nvmlReturn_t status = look_up(value, format, parts);
    va_end(parts);
    if (status == NVML_SUCCESS)
        *answer = strtoull(value, NULL, 10);
    return status;
}

__attribute__((format(printf, 3, 4)))
static nvmlReturn_t text(char *answer, unsigned int length, const char *format, ...)
{
    char value[VALUE];
    va_list parts;

    va_start(parts, format);
    nvmlReturn_t status = look_up(value, format, parts);
    va_end(parts);
    if (status != NVML_SUCCESS)
        return status;
    if (strlen(value) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(answer, value);
    return NVML_SUCCESS;
}

/* Reads a number into an integer of any type, which it leaves alone where there is none. */
#define READ(target, ...)                                     \
    ({                                                        \
        unsigned long long answer_;                           \
        nvmlReturn_t status_ = number(&answer_, __VA_ARGS__); \
        if (status_ == NVML_SUCCESS)                          \
            (target) = (__typeof__(target))answer_;           \
        status_;                                              \
    })


/* Calls */

static void note(const char *event)
{
    const char *path = getenv("SPARK_AGENT_TEST_NVML_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;

    if (log) {
        fprintf(log, "%s\n", event);
        fclose(log);
    }
}

__attribute__((constructor)) static void load(void)
{
    note("load");
}

__attribute__((destructor)) static void unload(void)
{
    note("unload");
}

static unsigned int device_count(void)
{
    unsigned int count = 0;

    READ(count, "devices");
    return count;
}

/* Every call but nvmlInit begins here: fails as a whole, or learns where its answer is. */
static nvmlReturn_t enter(char *where, const char *owner, const char *function)
{
    const char *version = strstr(function, "_v");
    int length = version ? (int)(version - function) : (int)strlen(function);

    note(function);
    if (!sessions)
        return NVML_ERROR_UNINITIALIZED;
    nvmlReturn_t status = refusal("init");
    if (status != NVML_SUCCESS)
        return status;
    if (strcmp(owner, "system") && strtoul(owner, NULL, 10) >= device_count())
        return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(where, KEY, "%s.%.*s", owner, length, function);
    return refusal(where);
}

#define ENTER(owner)                                     \
    char where[KEY];                                     \
    nvmlReturn_t status = enter(where, owner, __func__); \
    if (status != NVML_SUCCESS)                          \
        return status

static nvmlReturn_t initialise(const char *function)
{
    char value[VALUE];

    note(function);
    nvmlReturn_t status = refusal("init");
    if (status != NVML_SUCCESS)
        return status;
    if (!find("init", "=", value))
        return NVML_ERROR_DRIVER_NOT_LOADED;
    sessions++;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void)
{
    return initialise(__func__);
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    return initialise(__func__);
}

nvmlReturn_t nvmlShutdown(void)
{
    note(__func__);
    if (!sessions)
        return NVML_ERROR_UNINITIALIZED;
    sessions--;
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (result == ERRORS[i].code)
            return ERRORS[i].name;
    return result == NVML_SUCCESS ? "SUCCESS" : "UNKNOWN";
}


/* The system */

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    ENTER("system");
    return text(version, length, "%s", where);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    ENTER("system");
    return text(version, length, "%s", where);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *cudaDriverVersion)
{
    ENTER("system");
    return READ(*cudaDriverVersion, "%s", where);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *deviceCount)
{
    ENTER("system");
    return READ(*deviceCount, "%s", where);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    ENTER("system");
    if (index >= device_count() || index >= sizeof devices / sizeof *devices)
        return NVML_ERROR_INVALID_ARGUMENT;
    *device = &devices[index];
    return NVML_SUCCESS;
}


/* One device: texts, numbers, and numbers that an enumeration chooses from */

#define TEXT(function)                                                            \
    nvmlReturn_t function(nvmlDevice_t device, char *answer, unsigned int length) \
    {                                                                             \
        ENTER(device->name);                                                      \
        return text(answer, length, "%s", where);                                 \
    }

#define NUMBER(function, type)                               \
    nvmlReturn_t function(nvmlDevice_t device, type *answer) \
    {                                                        \
        ENTER(device->name);                                 \
        return READ(*answer, "%s", where);                   \
    }

#define CHOICE(function, enumeration, names)                                             \
    nvmlReturn_t function(nvmlDevice_t device, enumeration choice, unsigned int *answer) \
    {                                                                                    \
        ENTER(device->name);                                                             \
        if ((size_t)choice >= sizeof names / sizeof *names)                              \
            return NVML_ERROR_INVALID_ARGUMENT;                                          \
        /* The state may also have one number for every choice. */                       \
        status = READ(*answer, "%s.%s", where, names[choice]);                           \
        return status == NVML_ERROR_NOT_SUPPORTED ? READ(*answer, "%s", where) : status; \
    }

TEXT(nvmlDeviceGetName)
TEXT(nvmlDeviceGetUUID)
TEXT(nvmlDeviceGetVbiosVersion)

NUMBER(nvmlDeviceGetArchitecture, nvmlDeviceArchitecture_t)
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long)
NUMBER(nvmlDeviceGetDisplayActive, nvmlEnableState_t)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned int)
NUMBER(nvmlDeviceGetNumGpuCores, unsigned int)
NUMBER(nvmlDeviceGetPerformanceState, nvmlPstates_t)
NUMBER(nvmlDeviceGetPersistenceMode, nvmlEnableState_t)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned int)
NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned int)
NUMBER(nvmlDeviceGetPowerUsage, unsigned int)
NUMBER(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long)
NUMBER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long)

CHOICE(nvmlDeviceGetClockInfo, nvmlClockType_t, CLOCKS)
CHOICE(nvmlDeviceGetDefaultApplicationsClock, nvmlClockType_t, CLOCKS)
CHOICE(nvmlDeviceGetMaxClockInfo, nvmlClockType_t, CLOCKS)
CHOICE(nvmlDeviceGetTemperature, nvmlTemperatureSensors_t, SENSORS)
CHOICE(nvmlDeviceGetTemperatureThreshold, nvmlTemperatureThresholds_t, THRESHOLDS)


/* One device: what has a shape of its own. The first member says whether there is an answer. */

nvmlReturn_t nvmlDeviceGetAddressingMode(nvmlDevice_t device, nvmlDeviceAddressingMode_t *mode)
{
    ENTER(device->name);
    if (mode->version != nvmlDeviceAddressingMode_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return READ(mode->value, "%s", where);
}

nvmlReturn_t nvmlDeviceGetC2cModeInfoV(nvmlDevice_t device, nvmlC2cModeInfo_v1_t *c2cModeInfo)
{
    ENTER(device->name);
    return READ(c2cModeInfo->isC2cEnabled, "%s.isC2cEnabled", where);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    ENTER(device->name);
    READ(*minor, "%s.1", where);
    return READ(*major, "%s.0", where);
}

nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *version)
{
    ENTER(device->name);
    return text(version, NVML_GSP_FIRMWARE_VERSION_BUF_SIZE, "%s", where);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    ENTER(device->name);
    READ(memory->free, "%s.free", where);
    READ(memory->used, "%s.used", where);
    return READ(memory->total, "%s.total", where);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    ENTER(device->name);
    READ(pci->domain, "%s.domain", where);
    READ(pci->bus, "%s.bus", where);
    READ(pci->device, "%s.device", where);
    READ(pci->pciDeviceId, "%s.pciDeviceId", where);
    READ(pci->pciSubSystemId, "%s.pciSubSystemId", where);
    text(pci->busIdLegacy, sizeof pci->busIdLegacy, "%s.busIdLegacy", where);
    return text(pci->busId, sizeof pci->busId, "%s.busId", where);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    ENTER(device->name);
    READ(utilization->memory, "%s.memory", where);
    return READ(utilization->gpu, "%s.gpu", where);
}

static nvmlReturn_t processes(const char *where, unsigned int *infoCount, nvmlProcessInfo_t *infos)
{
    unsigned int count = 0;

    nvmlReturn_t status = READ(count, "%s.length", where);
    if (status == NVML_SUCCESS && count > *infoCount)
        status = NVML_ERROR_INSUFFICIENT_SIZE;
    *infoCount = count;
    for (unsigned int i = 0; status == NVML_SUCCESS && i < count; i++) {
        infos[i].usedGpuMemory = NVML_VALUE_NOT_AVAILABLE;
        READ(infos[i].pid, "%s.%u.pid", where, i);
        READ(infos[i].usedGpuMemory, "%s.%u.usedGpuMemory", where, i);
        READ(infos[i].gpuInstanceId, "%s.%u.gpuInstanceId", where, i);
        READ(infos[i].computeInstanceId, "%s.%u.computeInstanceId", where, i);
    }
    return status;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *infoCount,
                                                     nvmlProcessInfo_t *infos)
{
    ENTER(device->name);
    return processes(where, infoCount, infos);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *infoCount,
                                                     nvmlProcessInfo_t *infos)
{
    ENTER(device->name);
    return processes(where, infoCount, infos);
}

static bool is_counter(unsigned int field)
{
    return field == NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION ||
           (field >= NVML_FI_DEV_PERF_POLICY_POWER && field <= NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS) ||
           (field >= NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN &&
            field <= NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN);
}

/* The state has bare numbers; the driver says with each which member of the union it is. */
static void set(nvmlFieldValue_t *field, const char *value)
{
    unsigned long long whole = strtoull(value, NULL, 10);

    if (strchr(value, '.')) {
        field->valueType = NVML_VALUE_TYPE_DOUBLE;
        field->value.dVal = strtod(value, NULL);
    } else if (*value == '-') {
        field->valueType = NVML_VALUE_TYPE_SIGNED_LONG_LONG;
        field->value.sllVal = (long long)whole;
    } else if (is_counter(field->fieldId)) {
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        field->value.ullVal = whole;
    } else {
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
        field->value.uiVal = (unsigned int)whole;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int valuesCount, nvmlFieldValue_t *values)
{
    char value[VALUE];

    ENTER(device->name);
    snprintf(where, sizeof where, "%s.fields", device->name);
    status = refusal(where);
    for (int i = 0; status == NVML_SUCCESS && i < valuesCount; i++) {
        values[i].nvmlReturn = text(value, sizeof value, "%s.%u", where, values[i].fieldId);
        if (values[i].nvmlReturn == NVML_SUCCESS)
            set(&values[i], value);
    }
    return status;
}
