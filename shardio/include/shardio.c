/* The client of shardio's fabric in one file, and the calls of shardio.h over it. Compile it once into a program, as C or C++.
 *
 * The sources are the library's own: beside this file in an installed package, in native/ of the source tree.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "shardio.h"

#if __has_include("native/client.c")
#include "native/client.c"
#include "native/doorbell.c"
#include "native/fabric.c"
#include "native/journal.c"
#include "native/port.c"
#include "native/posting.c"
#include "native/route_cache.c"
#include "native/trace.c"
#else
#include "../../native/client.c"
#include "../../native/doorbell.c"
#include "../../native/fabric.c"
#include "../../native/journal.c"
#include "../../native/port.c"
#include "../../native/posting.c"
#include "../../native/route_cache.c"
#include "../../native/trace.c"
#endif

#include "port_open.c"
