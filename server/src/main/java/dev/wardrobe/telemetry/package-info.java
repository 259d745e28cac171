/** What is told about requests and the engine: metrics, traces, log lines, readiness. */
@NullMarked
package dev.wardrobe.telemetry;

import org.jspecify.annotations.NullMarked;
