"""Compiles kernels/*.cu ahead of time and writes what Go needs to launch them.

    python3 inference/device/cuda/tools/kernels.py [--headers] [--check] [--report] [--cache DIR]

The compiler is NVRTC from PyPI, so neither a CUDA toolkit nor a card is needed. Results, all committed:
  kernels/bin/<arch>.bin.gz  every cubin (or PTX) of one architecture: names, lengths and images
  kernels_gen.go             parameter structs, one typed launch for each kernel, digest of the sources
--headers only fetches cuda.h into the cache, which `make build-cuda` needs. --check fails when a source has changed
since the last run (no compiler needed). --report prints registers, shared memory and spills instead of writing.
"""
import argparse
import ctypes
import gzip
import hashlib
import importlib.util
import pathlib
import re
import struct
import subprocess
import sys
import zipfile

import driver
import wgmma

WHEELS = {
    "nvidia-cuda-runtime-cu12": "12.9.79",
    "nvidia-cuda-nvrtc-cu12": "12.9.86",
    "nvidia-cuda-nvcc-cu12": "12.9.86",
    "nvidia-cuda-cccl-cu12": "12.9.27",
}
HERE = pathlib.Path(__file__).resolve().parent.parent
KERNELS = HERE / "kernels"
# sm_90a holds what the plain targets hold and the Hopper kernels too; PTX serves cards newer than this list.
TARGETS = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120", "compute_80"]
UNITS = ["gemm", "attention", "norm", "elementwise", "grads", "hopper", "flash", "field"]
ONLY = {"hopper": {"sm_90a"}, "flash": {"sm_90a"}}


def pip(cache):
    """The command of a pip: this Python's, or that of a virtual environment in the cache."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    venv = cache / "pip"
    if not venv.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    return [str(venv / "bin/python"), "-m", "pip"]


def fetch(cache, names):
    """Unpacks wheels into cache/cuda; a marker file says which are there."""
    root = cache / "cuda"
    for name in names:
        version = WHEELS[name]
        mark = root / f"{name}-{version}"
        if mark.exists():
            continue
        wheels = cache / "wheels"
        subprocess.run([*pip(cache), "download", "-q", "--no-deps", "--disable-pip-version-check",
                        "-d", str(wheels), f"{name}=={version}"], check=True)
        for wheel in wheels.glob(name.replace("-", "_") + "-*.whl"):
            with zipfile.ZipFile(wheel) as z:
                z.extractall(root)
            wheel.unlink()
        mark.touch()
    return root / "nvidia"


class Compiler:
    def __init__(self, nvidia):
        self.includes = [nvidia / "cuda_runtime/include", nvidia / "cuda_nvcc/include", nvidia / "cuda_cccl/include"]
        lib = next((nvidia / "cuda_nvrtc/lib").glob("libnvrtc.so.*"))
        self.rtc = ctypes.CDLL(str(lib))

    def call(self, name, *args):
        code = getattr(self.rtc, name)(*args)
        if code and name != "nvrtcCompileProgram":
            raise SystemExit(f"{name}: error {code}")
        return code

    def compile(self, path, target):
        program = ctypes.c_void_p()
        self.call("nvrtcCreateProgram", ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None)
        options = [f"--gpu-architecture={target}", "--std=c++17", "--ptxas-options=-v"]
        options += [f"--include-path={p}" for p in [KERNELS, *self.includes]]
        array = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
        code = self.call("nvrtcCompileProgram", program, len(options), array)
        size = ctypes.c_size_t()
        self.call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.call("nvrtcGetProgramLog", program, log)
        if code:
            raise SystemExit(f"compile {path.name} for {target}:\n{log.value.decode()}")
        kind = "PTX" if target.startswith("compute") else "CUBIN"
        self.call(f"nvrtcGet{kind}Size", program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{kind}", program, image)
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        return image.raw[:size.value], log.value.decode()


def digest():
    h = hashlib.sha256()
    for path in sorted([*KERNELS.glob("*.cu"), *KERNELS.glob("*.cuh")], key=str):
        h.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return h.hexdigest()


GO_TYPES = {"int": ("int32", 4), "float": ("float32", 4), "long long": ("int64", 8)}


def parse_structs():
    """Reads params.cuh: [(name, comment, [(field, go type, size, comment)])]."""
    text = (KERNELS / "params.cuh").read_text()
    structs, sizes = [], {}
    for m in re.finditer(r"struct (\w+) \{\n(.*?)\n\};", text, re.S):
        name, fields, at = m[1], [], 0
        for line in m[2].splitlines():
            f = re.match(r"\s*(?:const )?([\w ]+?)\s*(\*?)\s+?(\w+);\s*(?://\s*(.*))?$", line.replace("*", " * "))
            if not f:
                if line.strip().startswith("//"):
                    continue
                raise SystemExit(f"params.cuh: cannot read {line!r}")
            ctype, star, field, note = f[1].strip(), f[2], f[3], f[4] or ""
            if star:
                go, size, align = "Ptr", 8, 8
            elif ctype == "CUtensorMap":
                go, size, align = "TensorMap", 128, 64
            elif ctype in sizes:
                go, size, align = ctype, sizes[ctype], 8
            else:
                go, size = GO_TYPES[ctype]
                align = size
            if at % align:
                raise SystemExit(f"params.cuh: {name}.{field} lies at {at}, add padding before it")
            at += size
            fields.append((field, go, note))
        if at % 8:
            raise SystemExit(f"params.cuh: {name} has {at} bytes, add an int")
        sizes[name] = at
        structs.append((name, fields, at))
    return structs


def export(field):
    return "".join(p[:1].upper() + p[1:] for p in field.split("_"))


def parse_kernels():
    """[(kernel, unit, parameter struct)] in the order of the sources, macros expanded."""
    found = []
    for unit in UNITS:
        text = (KERNELS / f"{unit}.cu").read_text()
        for m in re.finditer(r'extern "C" __global__ void __launch_bounds__\([^)]*\)\s*(\w+)\(const __grid_constant__ (\w+) p\)', text):
            found.append((m[1], unit, m[2]))
        for m in re.finditer(r"^GEMM\((\d+), (\d+),", text, re.M):
            found.append((f"gemm_{m[1]}x{m[2]}", unit, "GemmParams"))
        for m in re.finditer(r"^(HOPPER|FOLDING)\((\d+), (\d+),", text, re.M):
            found.append((f"{m[1].lower()}_{m[2]}x{m[3]}", unit, "HopperParams"))
    return found


def bindings(source_digest):
    structs, kernels = parse_structs(), parse_kernels()
    out = ["// Code generated by tools/kernels.py. DO NOT EDIT.", "", "//go:build cuda", "", "package cuda", "",
           'import "unsafe"', "",
           "// What the images in kernels/bin were made from and with.", "const (",
           f'\tsourceDigest = "{source_digest}"',
           f'\tcompilerVersion = "NVRTC {WHEELS["nvidia-cuda-nvrtc-cu12"]}"', ")", ""]
    for name, fields, size in structs:
        out += [f"// {name} mirrors the struct of kernels/params.cuh ({size} bytes).", f"type {name} struct {{"]
        for field, go, note in fields:
            out.append(f"\t{export(field)} {go}" + (f" // {note}" if note else ""))
        out += ["}", ""]
    out += ["// kernelID names a kernel.", "type kernelID int", "", "// The kernels.", "const ("]
    for i, (kernel, _, _) in enumerate(kernels):
        out.append(f"\tk{export(kernel)}" + (" kernelID = iota" if i == 0 else ""))
    out += ["\tkernelCount", ")", "", "var kernelNames = [kernelCount]string{"]
    out += [f'\tk{export(k)}: "{k}",' for k, _, _ in kernels]
    out += ["}", ""]
    out += ["// kernelUnits are the images of an archive and their kernels.", "var kernelUnits = []struct {", "\tname string", "\tfirst, end kernelID", "}{"]
    for unit in UNITS:
        ids = [i for i, (_, u, _) in enumerate(kernels) if u == unit]
        out.append(f'\t{{"{unit}", {ids[0]}, {ids[-1] + 1}}},')
    out += ["}", ""]
    for struct_name in dict.fromkeys(s for _, _, s in kernels):
        out += [f"func (l *launcher) {struct_name[0].lower()}{struct_name[1:].removesuffix('Params')}(k kernelID, g grid, p *{struct_name}) {{",
                "\tl.launch(k, g, unsafe.Pointer(p), unsafe.Sizeof(*p))", "}", ""]
    return "\n".join(out)


def archive(images):
    """magic, then for each image: name length, name, data length, data (little-endian 32-bit)."""
    parts = [b"DCK1", struct.pack("<I", len(images))]
    for name, data in images:
        parts += [struct.pack("<I", len(name)), name.encode(), struct.pack("<I", len(data)), data]
    return gzip.compress(b"".join(parts), 9, mtime=0)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--headers", action="store_true")
    args.add_argument("--check", action="store_true")
    args.add_argument("--report", action="store_true")
    args.add_argument("--only", default="", help="with --report: targets, comma-separated")
    args.add_argument("--cache", type=pathlib.Path, default=HERE.parent.parent.parent / ".cache")
    args = args.parse_args()
    if args.headers:
        print(fetch(args.cache, ["nvidia-cuda-runtime-cu12"]) / "cuda_runtime/include")
        return
    go_file = HERE / "kernels_gen.go"
    if args.check:
        if digest() not in go_file.read_text() or (KERNELS / "wgmma_gen.cuh").read_text() != wgmma.source():
            raise SystemExit("the CUDA kernels have changed since they were compiled: run make kernels")
        return
    (KERNELS / "wgmma_gen.cuh").write_text(wgmma.source())
    compiler = Compiler(fetch(args.cache, WHEELS))
    (KERNELS / "bin").mkdir(exist_ok=True)
    wanted = args.only.split(",") if args.only else TARGETS
    for target in wanted:
        images = []
        for unit in UNITS:
            if target not in ONLY.get(unit, {target}):
                continue
            image, log = compiler.compile(KERNELS / f"{unit}.cu", target)
            images.append((unit, image))
            if args.report:
                for entry in log.split("Compiling entry function '")[1:]:
                    numbers = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill.*?Used (\d+) registers(.*?)\n", entry, re.S)
                    print(f"{target:10} {entry.split(chr(39))[0]:18} stack {numbers[1]:>4} spill {numbers[2]:>4} registers {numbers[3]:>3}{numbers[4]}")
                for line in log.splitlines():
                    if "warning" in line.lower() or "C75" in line:
                        print(target, unit, line)
        if not args.report:
            data = archive(images)
            (KERNELS / "bin" / f"{target}.bin.gz").write_bytes(data)
            print(f"{target}: {len(data)} bytes")
    if not args.report:
        go_file.write_text(bindings(digest()))
        subprocess.run(["gofmt", "-w", str(go_file)], check=True)
        driver.write(HERE / "driver")


if __name__ == "__main__":
    main()
