import ctypes, mmap, os, signal

libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(4096)


def call(number, arguments):
    """Makes a system call in a child and says how it ended: an error number, 0, or minus the signal that killed it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        values = [ctypes.addressof(buffer) if value is None else value for value in arguments]
        if number < 0:
            # int 0x80 with the number in eax: the 32-bit interface, whatever the program is.
            code = b"\xb8" + (-number).to_bytes(4, "little") + b"\xcd\x80\xc3"
            page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(code)
            function = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
            result = function()
            error = -result if -4096 < result < 0 else 0
        else:
            result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(value & (2**64 - 1)) for value in values))
            error = ctypes.get_errno() if result == -1 else 0
        os.write(writer, error.to_bytes(4, "little"))
        os._exit(0)
    os.close(writer)
    told = os.read(reader, 4)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else int.from_bytes(told, "little")


answer = [call(number, arguments) for number, arguments in probes]
