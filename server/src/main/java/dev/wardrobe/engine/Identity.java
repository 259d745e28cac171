package dev.wardrobe.engine;

import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What keys and values depend on besides the tokens: the effective adapter, an ordered list of
 * digests and scales that is empty for the base; how they are stored; how they were computed.
 * Sequences share blocks only if their identities are equal. Where tenants are kept apart, the
 * tenant is part of the identity that blocks are shared by. Immutable.
 *
 * <p>No list or record, whose comparison allocates.
 */
final class Identity {
  private final KvShape.Type kv;
  private final MathMode math;
  private final String[] digests;
  private final float[] scales;
  private final String tenant;
  private final int hash;

  /**
   * @param digests of the adapters, in the order in which they are added
   * @param scales theirs; an adapter of scale 0 adds nothing and counts for nothing
   */
  Identity(KvShape.Type kv, MathMode math, String[] digests, float[] scales) {
    this.kv = kv;
    this.math = math;
    String[] names = new String[digests.length];
    float[] factors = new float[digests.length];
    int count = 0;
    for (int i = 0; i < digests.length; i++) {
      if (scales[i] != 0) {
        names[count] = digests[i];
        factors[count++] = scales[i];
      }
    }
    this.digests = Arrays.copyOf(names, count);
    this.scales = Arrays.copyOf(factors, count);
    tenant = "";
    hash = 31 * Arrays.hashCode(this.digests) + Arrays.hashCode(this.scales);
  }

  private Identity(Identity identity, String tenant) {
    kv = identity.kv;
    math = identity.math;
    digests = identity.digests;
    scales = identity.scales;
    this.tenant = tenant;
    hash = 31 * identity.hash + tenant.hashCode();
  }

  /** The same of one tenant, equal to no other tenant's. */
  Identity of(String tenant) {
    return new Identity(this, tenant);
  }

  /** The identity of these parts; none are the base. */
  static Identity of(KvShape.Type kv, MathMode math, List<AdapterPart> parts) {
    String[] digests = new String[parts.size()];
    float[] scales = new float[parts.size()];
    for (int i = 0; i < digests.length; i++) {
      digests[i] = parts.get(i).lease().digest();
      scales[i] = parts.get(i).scale();
    }
    return new Identity(kv, math, digests, scales);
  }

  @Override
  public boolean equals(@Nullable Object other) {
    return this == other
        || (other instanceof Identity that
            && hash == that.hash
            && kv == that.kv
            && math == that.math
            && tenant.equals(that.tenant)
            && Arrays.equals(digests, that.digests)
            && Arrays.equals(scales, that.scales));
  }

  @Override
  public int hashCode() {
    return hash;
  }
}
