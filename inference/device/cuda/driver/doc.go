// Package driver is the part of the CUDA driver that gorgonia.org/cu lacks:
// modules whose kernels take one parameter block, graphs captured from a
// stream, and tensor maps. It also holds the table that stands in for libcuda
// (table_gen.c), so that one binary starts with and without a driver.
// Without the build tag cuda it is empty.
package driver
