/** The step loop: scheduler and page pool, one thread over many sequences and adapters. */
@NullMarked
package dev.wardrobe.engine;

import org.jspecify.annotations.NullMarked;
