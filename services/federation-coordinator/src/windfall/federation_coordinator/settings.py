"""What a coordinator is told."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from windfall.contracts.events import Chooser, Precision
from windfall.contracts.jurisdiction import Jurisdiction
from windfall.contracts.message import Instant, Name
from windfall.contracts.tenancy import Loan
from windfall.energy.fleet import Told
from windfall.energy.goal import Goal
from windfall.federation_coordinator.beginning import PROVISIONAL, Wanted
from windfall.federation_coordinator.choosing import ForSite
from windfall.federation_coordinator.federation import Ends, Policy, Terms
from windfall.federation_coordinator.firewall import Limits
from windfall.federation_coordinator.jurisdiction import Law
from windfall.federation_coordinator.signatures import Demand, Trust
from windfall.lowcomm.rule import MEMORYLESS, Rule
from windfall.lowcomm.staleness import MOST_ROUNDS_LATE
from windfall.servicekit.settings import Settings, TlsSettings
from windfall.servicekit.standby import StandbySettings


def _split(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


def _object(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error


def _loans(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        Loan.read(text)
    return texts


_LONGEST_ROUND = timedelta(minutes=10)


class CoordinatorSettings(Settings, TlsSettings, StandbySettings):
    """One federation."""

    federation: Name = "demo"
    sites: Annotated[tuple[Name, ...], BeforeValidator(_split)] = ()
    """Sites whose events the hub sources; only they may join. Comma-separated."""
    jurisdiction: Jurisdiction | None = None
    """Under whose law this coordinator lies, like ``CA-QC``: sites may ask for it."""
    jurisdictions: Annotated[tuple[Jurisdiction, ...], BeforeValidator(_split)] = ()
    """Only sites under these laws may join; ``CA`` admits ``CA-QC``. Comma-separated; unset admits any."""
    lends: Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_loans)] = ()
    """What other tenants of the hub may hear of ours, like ``lab:window.opened.quebec``; the hub's NATS server must
    let them. Comma-separated."""
    listen: str = "127.0.0.1:0"
    """Where ``Training`` is served."""
    insecure: bool = False
    """Serve beyond loopback without TLS. Say so only on a network that you own."""
    task: str = "gpt-neox"
    task_settings: str = "{}"
    """JSON settings of the task."""
    seed: int = 0
    codec: str = "topk-ef"
    """In which contributions travel, with its settings: ``topk-ef`` (0.15 bit per parameter), ``dct-momentum``,
    ``q2-ef``, ``int4-block``, ``int8-block``, ``bf16`` or ``fp32``, as in ``topk-ef:keep=32``. ``auto`` is chosen once,
    for good, before the first round, by links, model and speeds as they were measured."""
    outer: str = ""
    """The outer optimizer: ``average`` or ``nesterov:lr=0.7,momentum=0.6``. Unset goes with the codec: ``average`` for
    the sparse ones, that Nesterov for the others."""
    clip: bool = False
    """Scale a contribution that is longer than the median one down to it."""
    merge: str = "mean"
    """How contributions become one: ``mean``; ``rda`` for radial-directional averaging of dense ones; or what liars
    cannot move at will: ``median``, ``trimmed-mean:share=0.2``, ``krum:byzantine=1``, ``multi-krum:byzantine=1``."""
    norm_factor: float = Field(default=10.0, ge=0)
    """A contribution that is so many times as long as the median of the last ones is refused; 0 judges none."""
    norm_history: int = Field(default=12, ge=1)
    """Contributions that must have been accepted before norms are judged."""
    shut_out_after: int = Field(default=5, ge=0)
    """So many refused contributions of a kind that no honest site brings shut a site out; 0 shuts nobody out."""
    shut_out_within: int = Field(default=20, ge=1)
    """Rounds within which they are counted."""
    shut_out_rounds: int = Field(default=100, ge=0)
    """Rounds for which a site is shut out; 0 leaves it to an operator, who readmits it."""
    tokens_factor: float = Field(default=4.0, ge=0)
    """A site that tells of so many times the tokens to which its measured speed leads, beside the others, counts as
    that many; 0 believes every site."""
    owners: Annotated[dict[Name, Name], BeforeValidator(_object)] = Field(default_factory=dict)
    """JSON: ``{"site-a": "acme", "site-b": "acme"}``: whose sites are; one that is not named is its own."""
    owner_share: float = Field(default=1.0, gt=0, le=1)
    """All sites of one owner weigh at most so much of a merge together, or as much as every other owner where those are
    too few. 1 caps nobody. For merges that weigh: ``mean`` and ``rda``."""
    signatures: Demand = "where-known"
    """Who must sign its contributions with its certificate's key: ``where-known``, each site that has signed before;
    ``required``, every site; ``off``, none. A signature that is there and does not hold is refused, but for ``off``."""
    round_length: timedelta | None = None
    """Business time after which a round ends. Unset, and without ``round_steps`` and ``round_tokens``, rounds follow
    the links: a site takes so many local steps that synchronising costs it at most a twentieth of its training, and 10
    minutes at most."""
    round_steps: int | None = Field(default=None, ge=1)
    """Local steps after which a site finishes its round."""
    average_steps: int | None = Field(default=None, ge=1)
    """Local steps of a round on average over its sites; each takes more or fewer, by its speed. Instead of those that
    follow from the links."""
    site_steps: Annotated[dict[Name, Annotated[int, Field(ge=1)]], BeforeValidator(_object)] = Field(
        default_factory=dict
    )
    """JSON: ``{"site-a": 20}``: local steps of single sites, whatever their speed."""
    round_tokens: int | None = Field(default=None, ge=1)
    """A round ends when its sites have trained so many tokens together."""
    overlap: bool = False
    """Sites train on while they synchronise, towards the next round: for links on which synchronising takes long. A
    site of several processes (``WINDFALL_PROCESSES``) waits all the same."""
    fragments: Literal["auto"] | Annotated[int, Field(ge=1)] = 1
    """Of the model: round r synchronises fragment r mod this, so that each round moves so many times less. For good:
    set once, at the federation's beginning. Each site must train in one process. ``auto`` is chosen like the codec."""
    advice_patience: timedelta = Field(default=timedelta(minutes=3), ge=timedelta(0))
    """Wall time that the first round waits for sites to be measured, where codec or fragments are ``auto``."""
    leave_out: bool = True
    """Leave a site out of a round when all others wait so long for it that less is trained than without. It takes part
    in every twentieth round all the same."""
    alone: timedelta = Field(default=timedelta(minutes=30), ge=timedelta(0))
    """How long a site that is alone trains on before it hands its model in: there is nobody to synchronise with. It
    does so at once when another site joins, or when its window closes. 0 treats it like many."""
    alone_codec: str = ""
    """In which it then says what it learnt. Unset: ``int8-block`` where the codec is sparse, so that nothing of a long
    round stays behind, else the codec itself."""
    minimum_sites: int = Field(default=1, ge=1)
    """A round opens when so many sites are there, and is merged when so many have contributed."""
    maximum_sites: int | None = Field(default=None, ge=1)
    """Sites that train in one round. The others are in reserve, and take turns."""
    straggler_grace: timedelta = timedelta(minutes=5)
    """A round that is over waits for a site as long as it gets on; so long after it stood still the round does not."""
    straggler_limit: timedelta | None = timedelta(hours=1)
    """And so long after the round's end it waits for nobody."""
    rounds_late: int = Field(default=MOST_ROUNDS_LATE, ge=0, le=MOST_ROUNDS_LATE)
    """A contribution that comes when its round has been merged goes into the next merge, at e^(−n/2) of its weight
    after n rounds; one that is later than this is refused."""
    silence: timedelta = timedelta(seconds=4.5)
    """Wall time without a heartbeat after which a site counts as gone."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples per step at every site; unset follows each site's profile."""
    gradient_accumulation: int | None = Field(default=None, ge=1, le=4096)
    """Passes in a step at every site; unset follows each site's profile."""
    precision: Precision | None = None
    """What every site multiplies in, ``fp32`` or ``bf16``; unset follows each site's profile."""
    site_settings: Annotated[dict[Name, ForSite], BeforeValidator(_object)] = Field(default_factory=dict)
    """JSON: ``{"site-a": {"micro_batch": 16, "gradient_accumulation": 2, "precision": "bf16", "local_steps": 20,
    "takes_part": true}}``: what single sites train with, whatever is advised, and whether they are never or always left
    out."""
    corpus: Literal["sovereign", "shared"] = "sovereign"
    """``sovereign``: every site trains its own data. ``shared``: every site holds a copy of one corpus, whose rows are
    leased to sites, so that each is trained once per epoch."""
    corpus_dir: Path | None = None
    """A copy of the shared corpus at the hub, whose rows are counted at the start."""
    corpus_rows: int | None = Field(default=None, ge=1)
    """Rows of the shared corpus, where the hub has no copy."""
    corpus_block: int | None = Field(default=None, ge=1)
    """Rows that are leased at once, at least. Unset: a 256th of the corpus, and 1,024 at most."""
    held_out_dir: Path | None = None
    """Held-out data on the hub, that no site trains on; unset evaluates nothing."""
    canary: float | None = Field(default=None, gt=0)
    """The canary gate: a merged model whose held-out loss is worse by more than this share of the last one's is not
    kept, and the next round starts from the base before it. Each merge then waits for its evaluation."""
    stop_tokens: int | None = Field(default=None, ge=1)
    """The federation ends when it has trained so many tokens."""
    stop_loss: float | None = None
    """It ends when the held-out loss is at or below this."""
    stop_at: Instant | None = None
    """It ends at this instant: ISO 8601 with its zone."""
    stop_kg: float | None = Field(default=None, gt=0)
    """It ends when the sites' ledgers have emitted so much CO2."""
    objective: Literal["fast", "carbon", "budget", "cost"] = "fast"
    """``fast`` plans nothing: every site uses each of its windows. ``carbon``: the work by the deadline, at least
    carbon. ``cost``: at least cost, by the sites' prices. ``budget``: as early as a budget of carbon allows."""
    work_tokens: int | None = Field(default=None, ge=1)
    """Tokens to train; then the federation finishes."""
    deadline: Instant | None = None
    """ISO 8601 with its zone."""
    budget_kg: float | None = Field(default=None, gt=0)
    """Of CO2, by the sites' ledgers."""
    replan: timedelta = Field(default=timedelta(minutes=15), gt=timedelta(0))
    """Business time between two plans; sooner when a forecast says something else."""
    plan_valid: timedelta | None = Field(default=None, gt=timedelta(0))
    """How long sites follow a plan without a newer one; unset: twice ``replan``."""
    tokens_per_hour: float | None = Field(default=None, gt=0)
    """What a site of speed 1 trains in an hour, until one has been measured. Unset, nothing is planned until then."""
    site_power: Annotated[dict[Name, Told], BeforeValidator(_object)] = Field(default_factory=dict)
    """JSON: ``{"site-a": {"training_kw": 2.0, "idle_kw": 0.4, "start_up_s": 240, "speed": 1.5}}``."""

    @model_validator(mode="after")
    def _ruled(self) -> Self:
        # Unknown names and values are said now.
        _ = self.rule
        if self.codec == "auto" and self.outer:
            raise ValueError("WINDFALL_OUTER goes with a codec that is told, not with WINDFALL_CODEC=auto")
        return self

    @model_validator(mode="after")
    def _owned(self) -> Self:
        merging = self.rule.merging
        if self.owner_share < 1 and (merging.pick is not None or merging.choose is not None):
            raise ValueError(
                f"WINDFALL_OWNER_SHARE goes with a merge that weighs, and {self.merge} gives each site a vote"
            )
        if strange := sorted(set(self.owners) - set(self.sites)):
            raise ValueError(f"WINDFALL_OWNERS names {', '.join(strange)}, which WINDFALL_SITES does not")
        return self

    @model_validator(mode="after")
    def _trusting(self) -> Self:
        if self.signatures == "required" and self.tls_authority is None:
            raise ValueError(
                "WINDFALL_SIGNATURES=required needs WINDFALL_TLS_AUTHORITY: sites sign with the keys of certificates"
            )
        return self

    @model_validator(mode="after")
    def _stepped(self) -> Self:
        steps = {site: one for site, one in self.site_settings.items() if one.local_steps is not None}
        told = {
            "WINDFALL_AVERAGE_STEPS": self.average_steps,
            "WINDFALL_SITE_STEPS": self.site_steps,
            "local_steps in WINDFALL_SITE_SETTINGS": steps,
        }
        if not self.follows_links and (vain := [name for name, value in told.items() if value]):
            boxes = "WINDFALL_ROUND_LENGTH, WINDFALL_ROUND_STEPS and WINDFALL_ROUND_TOKENS"
            raise ValueError(f"{' and '.join(vain)} go without {boxes}")
        for name, of_sites in (("SITE_STEPS", self.site_steps), ("SITE_SETTINGS", self.site_settings)):
            if strange := sorted(set(of_sites) - set(self.sites)):
                raise ValueError(f"WINDFALL_{name} names {', '.join(strange)}, which WINDFALL_SITES does not")
        if twice := sorted(site for site in self.site_steps if self._wanted_of(site).local_steps is not None):
            raise ValueError(
                f"both WINDFALL_SITE_STEPS and WINDFALL_SITE_SETTINGS say local steps of {', '.join(twice)}"
            )
        return self

    def _wanted_of(self, site: str) -> ForSite:
        return self.site_settings.get(site, ForSite())

    @model_validator(mode="after")
    def _shared(self) -> Self:
        told = self.corpus_dir is not None, self.corpus_rows is not None
        if self.corpus == "shared" and told not in ((True, False), (False, True)):
            raise ValueError("a shared corpus needs WINDFALL_CORPUS_DIR or WINDFALL_CORPUS_ROWS, and not both")
        if self.corpus == "sovereign" and any(told):
            raise ValueError("WINDFALL_CORPUS_DIR and WINDFALL_CORPUS_ROWS go with WINDFALL_CORPUS=shared")
        return self

    @model_validator(mode="after")
    def _judged(self) -> Self:
        told = {"WINDFALL_CANARY": self.canary, "WINDFALL_STOP_LOSS": self.stop_loss}
        if self.held_out_dir is None and (vain := [name for name, value in told.items() if value is not None]):
            raise ValueError(f"{' and '.join(vain)} need held-out data; set WINDFALL_HELD_OUT_DIR")
        if self.stop_kg is not None and self.objective != "fast":
            raise ValueError(
                f"WINDFALL_STOP_KG without a plan only; the objective {self.objective} has WINDFALL_BUDGET_KG"
            )
        if self.maximum_sites is not None and self.maximum_sites < self.minimum_sites:
            raise ValueError("WINDFALL_MAXIMUM_SITES is below WINDFALL_MINIMUM_SITES")
        if self.alone_codec and self.alone_codec not in MEMORYLESS:
            raise ValueError(f"WINDFALL_ALONE_CODEC is {self.alone_codec!r}; known are {', '.join(MEMORYLESS)}")
        return self

    @model_validator(mode="after")
    def _planned(self) -> Self:
        aims = {"WORK_TOKENS": self.work_tokens, "DEADLINE": self.deadline, "BUDGET_KG": self.budget_kg}
        if self.objective == "fast":
            if told := [f"WINDFALL_{name}" for name, value in aims.items() if value is not None]:
                raise ValueError(f"{', '.join(told)} without a plan; set WINDFALL_OBJECTIVE to carbon, budget or cost")
            return self
        needed = ("WORK_TOKENS", "BUDGET_KG" if self.objective == "budget" else "DEADLINE")
        if missing := [f"WINDFALL_{name}" for name in needed if aims[name] is None]:
            raise ValueError(f"WINDFALL_OBJECTIVE is {self.objective} and needs {' and '.join(missing)}")
        if self.plan_valid is not None and self.plan_valid <= self.replan:
            raise ValueError("WINDFALL_PLAN_VALID must be longer than WINDFALL_REPLAN, or plans end before the next")
        if strange := sorted(set(self.site_power) - set(self.sites)):
            raise ValueError(f"WINDFALL_SITE_POWER names {', '.join(strange)}, which WINDFALL_SITES does not")
        return self

    @property
    def goal(self) -> Goal | None:
        """What is planned for; none when nothing is."""
        if self.objective == "fast" or self.work_tokens is None:
            return None
        return Goal(
            federation=self.federation,
            objective=self.objective,
            work_tokens=self.work_tokens,
            deadline=self.deadline,
            budget_kg=self.budget_kg,
            valid=self.plan_valid or 2 * self.replan,
            tokens_per_hour=self.tokens_per_hour,
            told=self.site_power,
        )

    @property
    def loans(self) -> Mapping[str, Sequence[Loan]]:
        """What is lent, by borrower."""
        found: dict[str, list[Loan]] = {}
        for loan in map(Loan.read, self.lends):
            found.setdefault(loan.borrower, []).append(loan)
        return found

    @property
    def law(self) -> Law:
        return Law(self.jurisdiction or "", self.jurisdictions)

    @property
    def rule(self) -> Rule:
        """What contributions are written and merged by; where the codec is to be chosen, what it is until then."""
        return self.rule_of(None)

    def rule_of(self, terms: Terms | None) -> Rule:
        """The same, once something was chosen."""
        codec = self.wanted.codec or (terms.codec if terms is not None else PROVISIONAL)
        return Rule.parse(codec, self.outer, self.clip, self.merge)

    @property
    def wanted(self) -> Wanted:
        """How contributions are to be written."""

        def by(name: str) -> Chooser:
            return "operator" if name in self.model_fields_set else "default"

        return Wanted(
            None if self.codec == "auto" else self.codec,
            None if self.fragments == "auto" else self.fragments,
            by("codec"),
            by("fragments"),
            self.alone_codec,
        )

    @property
    def trust(self) -> Trust:
        """Whose signatures count."""
        return Trust(self.tls_authority, self.tls_revoked, self.signatures)

    @property
    def limits(self) -> Limits:
        return Limits(
            self.norm_factor or None,
            self.norm_history,
            self.shut_out_after or None,
            self.shut_out_within,
            self.shut_out_rounds or None,
            self.tokens_factor or None,
            self.owners,
            self.owner_share,
        )

    @property
    def policy(self) -> Policy:
        """How rounds are boxed, while nothing is chosen."""
        return self.policy_of(None)

    def policy_of(self, terms: Terms | None) -> Policy:
        """The same, once something was chosen."""
        length = _LONGEST_ROUND if self.follows_links else self.round_length
        alone_codec = self.wanted.alone(self.rule_of(terms).sparse)
        return Policy(
            length,
            self.round_steps,
            self.straggler_grace,
            self.micro_batch,
            tokens=self.round_tokens,
            straggler_limit=self.straggler_limit,
            alone=self.alone or None,
            alone_codec=alone_codec,
            minimum=self.minimum_sites,
            maximum=self.maximum_sites,
            rounds_late=self.rounds_late,
            ends=Ends(self.stop_tokens, self.stop_loss, self.stop_at, self.stop_kg),
            canary=self.canary,
            gradient_accumulation=self.gradient_accumulation,
            precision=self.precision,
            sites=self.site_settings,
            weighs=self.leave_out,
            average_steps=self.average_steps,
            site_steps=self.site_steps,
            once=self.rule_of(terms).merging.robust,
        )

    @property
    def follows_links(self) -> bool:
        """Nobody said how long a round is."""
        return self.round_length is None and self.round_steps is None and self.round_tokens is None
