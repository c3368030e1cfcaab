/* A libnvidia-ml.so.1 without a card: it plays the script that the environment
 * variable NVML_SCRIPT names. Package gputest tells the script's language and
 * compiles this file; -DOLD_DRIVER leaves out functions that early drivers lack. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "nvml.h"

#define CARDS 8
#define POINTS 2048

struct point { double at, value; int none; char field[24]; };

static struct card {
  char name[64];
  int n, modelled, xids_told;
  struct point points[POINTS];
  /* The thermal model: it settles at full while this process computes, at air while it rests. */
  double air, full, tau, celsius, last, last_cpu;
} cards[CARDS];

static int count;
static double begun, changed = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static double clock_of(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* load reads the script, again when it was changed. A card keeps its heat. */
static void load(void) {
  struct stat st;
  const char *path = getenv("NVML_SCRIPT");
  if (!path || stat(path, &st)) return;
  double when = st.st_mtim.tv_sec + 1e-9 * st.st_mtim.tv_nsec;
  if (when == changed) return;
  FILE *f = fopen(path, "r");
  if (!f) return;
  changed = when;
  count = 1;
  for (int i = 0; i < CARDS; i++) {
    cards[i].n = cards[i].modelled = 0;
    snprintf(cards[i].name, sizeof cards[i].name, "Scripted Card %d", i);
  }
  char line[256], word[24], value[64];
  int c = 0;
  double a, b, d, e, at;
  while (fgets(line, sizeof line, f)) {
    struct card *k = &cards[c];
    if (sscanf(line, "card %d", &c) == 1) {
      if (c < 0 || c >= CARDS) abort();
      if (c >= count) count = c + 1;
    } else if (sscanf(line, "model %lf %lf %lf %lf", &a, &b, &d, &e) == 4) {
      k->modelled = 1, k->air = a, k->full = b, k->tau = d;
      if (k->last == 0) k->celsius = e;
    } else if (sscanf(line, "%lf %23s %63s", &at, word, value) == 3 && k->n < POINTS) {
      struct point *p = &k->points[k->n++];
      p->at = at, p->none = !strcmp(value, "none"), p->value = atof(value);
      strcpy(p->field, word);
    }
  }
  fclose(f);
}

/* heat moves the model to now. */
static double heat(struct card *k) {
  double now = clock_of(CLOCK_MONOTONIC), cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
  if (k->last > 0 && now - k->last < 0.05) return k->celsius;
  if (k->last > 0) {
    double passed = now - k->last, share = (cpu - k->last_cpu) / passed / 0.5;
    double settled = k->air + (k->full - k->air) * (share > 1 ? 1 : share);
    k->celsius = settled + (k->celsius - settled) * exp(-passed / k->tau);
  }
  k->last = now, k->last_cpu = cpu;
  return k->celsius;
}

/* read gives a field now, on the line between its two points. */
static nvmlReturn_t read_field(nvmlDevice_t device, const char *field, double *out) {
  pthread_mutex_lock(&lock);
  load();
  struct card *k = (struct card *)device.handle;
  double t = clock_of(CLOCK_MONOTONIC) - begun;
  struct point *before = 0, *after = 0;
  for (int i = 0; i < k->n; i++) {
    struct point *p = &k->points[i];
    if (!strcmp(p->field, "lost") && p->at <= t && strcmp(field, "xid")) {
      int lost = p->value != 0;
      for (int j = i + 1; j < k->n; j++)
        if (!strcmp(k->points[j].field, "lost") && k->points[j].at <= t) lost = k->points[j].value != 0;
      if (lost) {
        pthread_mutex_unlock(&lock);
        return NVML_ERROR_GPU_IS_LOST;
      }
    }
    if (strcmp(p->field, field)) continue;
    if (p->at <= t) before = p;
    else if (!after) after = p;
  }
  nvmlReturn_t ret = NVML_SUCCESS;
  if (!strcmp(field, "temperature") && k->modelled) *out = heat(k);
  else if (!before || before->none) ret = NVML_ERROR_NOT_SUPPORTED;
  else if (!after || after->none || !strcmp(field, "throttle")) *out = before->value;
  else *out = before->value + (after->value - before->value) * (t - before->at) / (after->at - before->at);
  pthread_mutex_unlock(&lock);
  return ret;
}

#define READ(field) \
  double x; \
  nvmlReturn_t ret = read_field(d, field, &x); \
  if (ret != NVML_SUCCESS) return ret

nvmlReturn_t nvmlInit_v2(void) {
  begun = clock_of(CLOCK_MONOTONIC);
  load();
  return count ? NVML_SUCCESS : NVML_ERROR_DRIVER_NOT_LOADED;
}
nvmlReturn_t nvmlInit(void) { return nvmlInit_v2(); }
nvmlReturn_t nvmlShutdown(void) { return NVML_SUCCESS; }
const char *nvmlErrorString(nvmlReturn_t r) {
  return r == NVML_SUCCESS ? "Success" : r == NVML_ERROR_GPU_IS_LOST ? "GPU is lost" : "Not Supported";
}
nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned int n) { snprintf(out, n, "580.0.script"); return NVML_SUCCESS; }
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *out) { *out = 13000; return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *n) { *n = count; return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int i, nvmlDevice_t *d) { d->handle = (void *)&cards[i]; return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *out, unsigned int n) {
  double unused;
  if (read_field(d, "temperature", &unused) == NVML_ERROR_GPU_IS_LOST) return NVML_ERROR_GPU_IS_LOST;
  snprintf(out, n, "GPU-script-%d", (int)((struct card *)d.handle - cards));
  return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *out, unsigned int n) { snprintf(out, n, "%s", ((struct card *)d.handle)->name); return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t d, int *major, int *minor) { *major = 9, *minor = 0; return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, nvmlTemperatureSensors_t s, unsigned int *out) { READ("temperature"); *out = lround(x); return ret; }
nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t d, nvmlTemperatureThresholds_t s, unsigned int *out) { READ("threshold"); *out = x; return ret; }
#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t d, nvmlMarginTemperature_t *m) { READ("margin"); m->marginTemperature = lround(x); return ret; }
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned int *out) { READ("power_limit"); *out = 1000 * x; return ret; }
nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t d, nvmlPcieUtilCounter_t c, unsigned int *out) {
  READ(c == NVML_PCIE_UTIL_RX_BYTES ? "pcie_read" : "pcie_write");
  *out = x;
  return ret;
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned int *n, nvmlProcessInfo_t *out) {
  READ("process");
  if (*n < 1) { *n = 1; return NVML_ERROR_INSUFFICIENT_SIZE; }
  *n = 1;
  memset(out, 0, sizeof *out);
  out->pid = getpid();
  out->usedGpuMemory = x < 0 ? ~0ull : (unsigned long long)x;
  return ret;
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t d, unsigned int *n, nvmlProcessInfo_v1_t *out) { return NVML_ERROR_NOT_SUPPORTED; }
#endif
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m) {
  READ("memory_total");
  m->total = x;
  if ((ret = read_field(d, "memory_used", &x)) != NVML_SUCCESS) return ret;
  m->used = x;
  m->free = m->total - m->used;
  return ret;
}
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *u) { READ("utilisation"); u->gpu = x; u->memory = 0; return ret; }
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned int *out) { READ("power"); *out = 1000 * x; return ret; }
nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t d, nvmlClockType_t c, unsigned int *out) {
  READ(c == NVML_CLOCK_SM ? "clock_sm" : "clock_memory");
  *out = x;
  return ret;
}
nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t d, unsigned int *out) { READ("fan"); *out = x; return ret; }
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t d, nvmlMemoryErrorType_t t, nvmlEccCounterType_t c, unsigned long long *out) {
  READ("ecc");
  *out = x;
  return ret;
}
nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t d, unsigned int *out) { READ("pcie_gen"); *out = x; return ret; }
nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t d, unsigned int *out) { READ("pcie_width"); *out = x; return ret; }
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t d, unsigned long long *out) { READ("throttle"); *out = x; return ret; }

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) { set->handle = (void *)cards; return NVML_SUCCESS; }
nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) { return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t d, unsigned long long types, nvmlEventSet_t set) { return NVML_SUCCESS; }
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *out, unsigned int ms) {
  pthread_mutex_lock(&lock);
  load();
  nvmlReturn_t ret = NVML_ERROR_TIMEOUT;
  double t = clock_of(CLOCK_MONOTONIC) - begun;
  for (int c = 0; c < count && ret != NVML_SUCCESS; c++) {
    int seen = 0;
    for (int i = 0; i < cards[c].n; i++) {
      struct point *p = &cards[c].points[i];
      if (strcmp(p->field, "xid") || p->at > t || ++seen <= cards[c].xids_told) continue;
      cards[c].xids_told++;
      memset(out, 0, sizeof *out);
      out->device.handle = (void *)&cards[c];
      out->eventType = nvmlEventTypeXidCriticalError;
      out->eventData = p->value;
      ret = NVML_SUCCESS;
      break;
    }
  }
  pthread_mutex_unlock(&lock);
  return ret;
}
nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *out, unsigned int ms) { return nvmlEventSetWait_v2(set, out, ms); }
