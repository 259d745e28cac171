package dev.wardrobe.adapter;

import java.util.List;

/**
 * One name of a registry and the adapter behind it, at one moment.
 *
 * @param digest {@code sha256:} and 64 hexadecimal digits
 * @param kind {@code lora}, {@code rslora} or {@code dora}
 * @param rank the highest of its modules
 * @param modules how many of the base's it changes
 * @param parameters elements of its tensors
 * @param bytes what it takes when it is resident
 * @param resident whether it is now; one that is not loads when it is asked for
 * @param inUse open leases under this name
 * @param requests leases ever opened under this name
 * @param warnings what is odd about it, a line each
 */
public record AdapterEntry(
    String name,
    String digest,
    String kind,
    int rank,
    int modules,
    long parameters,
    long bytes,
    boolean resident,
    int inUse,
    long requests,
    List<String> warnings) {}
