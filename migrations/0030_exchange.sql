-- depends: 0029_paths
-- Partners' clients that were there before consents may exchange tokens too, as those that are made from now on.

update oauth_client
   set grants = grants || array['urn:ietf:params:oauth:grant-type:token-exchange']
 where partner_id is not null
   and not 'urn:ietf:params:oauth:grant-type:token-exchange' = any(grants);
