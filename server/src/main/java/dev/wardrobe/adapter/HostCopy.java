package dev.wardrobe.adapter;

/**
 * An adapter's copy on the host, and how many hold it: the cache, an upload that reads from it, or
 * whoever cannot get it from its files again. Guarded by the registry's lock; closed at zero.
 */
final class HostCopy {
  final Loader.Candidate candidate;
  int holders;

  HostCopy(Loader.Candidate candidate) {
    this.candidate = candidate;
  }
}
