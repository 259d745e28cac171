/** A CUDA device as a backend: memory, streams and graphs through JCuda, kernels of our own. */
@NullMarked
package dev.wardrobe.compute.cuda;

import org.jspecify.annotations.NullMarked;
