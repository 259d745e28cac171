package dev.wardrobe.tenant;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

final class PlacesTest {
  private static Caller of(String tenant) {
    return new Caller("key-of-" + tenant, tenant, Set.of(Scope.INFERENCE), List.of());
  }

  private final Places places = new Places("uploads", 5, 2);

  @Test
  void take_leavesRoomForOtherTenants() {
    for (int i = 0; i < 2; i++) {
      assertThat(places.take(of("acme"))).isNull();
    }
    assertThat(places.take(of("acme")))
        .isEqualTo(
            "expected at most 2 uploads of a tenant at once, got another; end one, or come again"
                + " later");
    assertThat(places.take(of("globex"))).isNull();
    places.giveBack(of("acme"));
    assertThat(places.take(of("acme"))).isNull();
  }

  @Test
  void take_hasAnEnd_alsoForThoseWhoShowNothing() {
    for (int round = 0; round < 2; round++) {
      for (int i = 0; i < 5; i++) {
        assertThat(places.take(Caller.ANYONE)).isNull();
      }
      assertThat(places.take(of("acme"))).contains("at most 5 uploads at once");
      for (int i = 0; i < 5; i++) {
        places.giveBack(Caller.ANYONE);
      }
    }
    assertThat(places.take(of("acme"))).isNull();
  }
}
