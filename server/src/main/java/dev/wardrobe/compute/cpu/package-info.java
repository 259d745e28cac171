/** The CPU backend: kernels on the Vector API, each with a plain scalar twin. */
@NullMarked
package dev.wardrobe.compute.cpu;

import org.jspecify.annotations.NullMarked;
