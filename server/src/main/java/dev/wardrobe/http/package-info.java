/** The port, and what it answers over HTTP; gRPC's calls go on to their services. */
@NullMarked
package dev.wardrobe.http;

import org.jspecify.annotations.NullMarked;
