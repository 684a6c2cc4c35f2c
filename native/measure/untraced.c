/* The client as it would be if nobody could trace it, its names changed: what the check for a trace costs is measured against it. */
#define sio_client_init untraced_init
#define sio_client_attach untraced_attach
#define sio_client_access untraced_access
#define sio_client_string untraced_string
#define sio_client_untraced untraced_once
#define sio_client_untraced_string untraced_string_once
#define sio_client_read sio_untraced_read
#define sio_client_write untraced_write

#include "trace.h"

/* Answers for the inline function of trace.h, which is defined by now. */
#define sio_client_traced(c) 0

#include "client.c"
