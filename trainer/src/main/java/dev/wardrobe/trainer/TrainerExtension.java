package dev.wardrobe.trainer;

import dev.wardrobe.spi.ServerExtension;

/**
 * The trainer's place in the server: its commands and services are registered here, over the same
 * resident base. It has none yet.
 */
public final class TrainerExtension implements ServerExtension {}
