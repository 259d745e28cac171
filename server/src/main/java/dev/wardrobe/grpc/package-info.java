/** The gRPC front end, on one Vert.x port. */
@NullMarked
package dev.wardrobe.grpc;

import org.jspecify.annotations.NullMarked;
