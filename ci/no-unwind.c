/* What Rust's standard library asks of an unwinder, for static musl files: these abort on a panic, so
 * nothing ever unwinds, and musl brings no unwinder (gcc's own wants glibc). A backtrace is empty; being
 * asked to unwind is a defect of the build, and ends the process. */
#include <stdlib.h>

/* _URC_END_OF_STACK of the Itanium C++ ABI; on ARM the same number is _URC_END_OF_STACK too. */
int _Unwind_Backtrace(void *callback, void *argument) { (void)callback; (void)argument; return 5; }

#define NEVER(name) void name(void); void name(void) { abort(); }
NEVER(_Unwind_RaiseException)
NEVER(_Unwind_Resume)
NEVER(_Unwind_DeleteException)
NEVER(_Unwind_FindEnclosingFunction)
NEVER(_Unwind_GetCFA)
NEVER(_Unwind_GetDataRelBase)
NEVER(_Unwind_GetGR)
NEVER(_Unwind_GetIP)
NEVER(_Unwind_GetIPInfo)
NEVER(_Unwind_GetLanguageSpecificData)
NEVER(_Unwind_GetRegionStart)
NEVER(_Unwind_GetTextRelBase)
NEVER(_Unwind_SetGR)
NEVER(_Unwind_SetIP)
/* ARM's own. */
NEVER(_Unwind_VRS_Get)
NEVER(_Unwind_VRS_Set)
NEVER(__gnu_unwind_frame)
