/** The command line: generate, chat, demo and what else talks to a server. */
@NullMarked
package dev.wardrobe.client.cli;

import org.jspecify.annotations.NullMarked;
