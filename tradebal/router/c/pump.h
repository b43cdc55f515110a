/* The only room that receives. */
#ifndef TRADEBAL_PUMP_H
#define TRADEBAL_PUMP_H

#include "state.h"

/* As Router.pump; *error is errno where it returns STATUS_ERROR. */
int pump(core *c, int fd, int64_t budget_ns, int wake, int *error);

#endif
