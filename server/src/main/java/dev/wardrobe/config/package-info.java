/** The configuration: one immutable record tree, read from YAML and the environment. */
@NullMarked
package dev.wardrobe.config;

import org.jspecify.annotations.NullMarked;
