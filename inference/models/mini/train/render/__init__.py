"""Renders procedural objects: builds render.cu with nvcc (CUDA tensors) or g++ (CPU tensors) on first use."""
import ctypes
import math
import os
import shutil
import subprocess
import tempfile

import torch

FIELD_OF_VIEW, DISTANCE = 40., 2.8  # degrees; object radii (at most 0.94) are in the same units
_HERE = os.path.dirname(os.path.abspath(__file__))
_libraries = {}


def library(cuda):
    """The compiled renderer; kept in the user's cache of temporary files, rebuilt when a source is newer."""
    if cuda in _libraries:
        return _libraries[cuda]
    folder = os.environ.get("DREAM_RENDER_CACHE") or os.path.join(tempfile.gettempdir(), f"dreamcad-render-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    built = os.path.join(folder, "render-cuda.so" if cuda else "render-cpu.so")
    sources = [os.path.join(_HERE, name) for name in ("render.cu", "scene.h")]
    if not os.path.exists(built) or os.path.getmtime(built) < max(map(os.path.getmtime, sources)):
        fresh = f"{built}.{os.getpid()}"
        if cuda:
            major, minor = torch.cuda.get_device_capability()
            nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
            command = [nvcc, "-O3", "-use_fast_math", f"-arch=sm_{major}{minor}", "--shared", "-Xcompiler", "-fPIC"]
        else:
            command = ["g++", "-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC", "-x", "c++"]
        subprocess.run(command + ["-o", fresh, sources[0]], check=True)
        os.replace(fresh, built)
    _libraries[cuda] = ctypes.CDLL(built)
    return _libraries[cuda]


def _pointer(t):
    return ctypes.c_void_p(t.data_ptr())


def _check(code, what):
    if code != 0:
        raise RuntimeError(f"{what}: CUDA error {code}")


def normalise(objects):
    """Fills centre and scale of objects (N, OBJECT) float32, in place."""
    _check(library(objects.is_cuda).normalise_objects(_pointer(objects), ctypes.c_int(objects.shape[0])), "normalising objects")
    return objects


def render(objects, which, azimuth, elevation, size=128, samples=2):
    """objects (N, OBJECT), normalised; which (V) int32 indices of objects; azimuth and elevation (V) in degrees, the network's
    convention -> (V, size, size, 3) uint8 on the same device. samples is per side: 2 means 4 rays a pixel."""
    n, az, el = which.shape[0], torch.deg2rad(azimuth.float()).contiguous(), torch.deg2rad(elevation.float()).contiguous()
    which = which.to(torch.int32).contiguous()
    out = torch.empty(n, size, size, 3, dtype=torch.uint8, device=objects.device)
    fov, distance = ctypes.c_float(math.radians(FIELD_OF_VIEW)), ctypes.c_float(DISTANCE)
    code = library(objects.is_cuda).render_views(_pointer(objects), _pointer(which), _pointer(az), _pointer(el), ctypes.c_int(n), fov, distance,
                                                 ctypes.c_int(size), ctypes.c_int(samples), _pointer(out))
    _check(code, "rendering views")
    if out.is_cuda:
        torch.cuda.synchronize()
    return out


def field_values(obj, points):
    """Field of one normalised object (OBJECT) on the CPU at points (N, 3) -> (N); negative inside."""
    out, points = torch.empty(points.shape[0]), points.float().contiguous()
    _check(library(False).field_values(_pointer(obj), _pointer(points), ctypes.c_int(points.shape[0]), _pointer(out)), "evaluating the field")
    return out


def surface_points(obj, count, seed=0, most=64):
    """Points (count, 3) spread evenly over the surface of one normalised object, and outward normals (count, 3).

    Every crossing of random chords of the sphere around it is taken: by Crofton's formula their density is even."""
    generator, found, have = torch.Generator().manual_seed(seed), [], 0
    buffer = torch.empty(most, 6)
    while have < count:
        ends = torch.nn.functional.normalize(torch.randn(256, 2, 3, generator=generator), dim=-1)
        for a, b in ends:
            reach = float((b - a).norm())
            direction = ((b - a) / max(reach, 1e-6)).contiguous()
            n = library(False).crossings(_pointer(obj), _pointer(a.contiguous()), _pointer(direction), ctypes.c_float(reach), ctypes.c_int(most),
                                         _pointer(buffer))
            if n:
                found.append(buffer[:n].clone())
                have += n
    points = torch.cat(found)[:count]
    return points[:, :3], points[:, 3:]


def camera_matrix(azimuth, elevation):
    """Camera-to-world matrices (.., 16) that the network is told: Blender axes, unit distance, row-major. Degrees."""
    az, el = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    sa, ca, se, ce = az.sin(), az.cos(), el.sin(), el.cos()
    z, o = torch.zeros_like(sa), torch.ones_like(sa)
    return torch.stack([ca, -se * sa, ce * sa, ce * sa, sa, se * ca, -ce * ca, -ce * ca, z, ce, se, se, z, z, z, o], -1)
